"""Writes shards: images are collected in a temporary file until all samples are known, then written shard by shard."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

from ...errors import GanpipeError
from ..shards.tar import tar_ending, tar_member
from .conversion import Converted
from .previous import ImageRange, Layout, NotedShard, PreviousIngest, ShardSignature
from .reading import FEWER_IMAGES
from .sample_index import Sample

_CHUNK_BYTES = 2**20
_MAX_OPEN = 32
_MISSING = 2**32 - 1
"""In the place of a file's number: the images are to be decoded once more, from the item at a position."""


KeyedSample = tuple[str, Sample]
"""A sample's key in its shard, and the sample."""


class Missing(NamedTuple):
    """Images that have to be decoded once more: the position of an item that has them, and how many bytes they are, or
    about the most that they can be."""

    position: int
    num_bytes: int


class ImageStore:
    """The images of all samples. New images go to an anonymous file, which vanishes even if the process is killed; the
    images of the previous ingest are read from its shards.

    If the file may not hold all new images, those beyond its room are decoded once more, a part of them at a time: see
    `missing`.
    """

    def __init__(
        self,
        folder: Path,
        previous: PreviousIngest,
        label_position: int | None = None,
        num_raw_bytes: int = 0,
        max_bytes: int | None = None,
    ) -> None:
        """
        Args:
            folder: where the anonymous file is made.
            previous: the shards of the previous ingest.
            label_position: index of the main label among a sample's values; None if there are no labels.
            num_raw_bytes: about the most bytes that a sample's images take; PNGs of noise take a little more.
            max_bytes: the most bytes in the anonymous file, half of them for images that were decoded once more; None:
                no bound.
        """
        self._previous, self._label_position, self._num_raw_bytes = previous, label_position, num_raw_bytes
        self._spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self._number = len(previous.shards)
        self._end = self._end_of_first = 0
        self.part_bytes = sys.maxsize if max_bytes is None else max_bytes // 2
        """The most bytes of the images that are kept at first, and of those that are decoded once more at a time."""
        self._again: dict[bytes, tuple[ImageRange, ...]] = {}
        self._open: dict[int, IO[bytes]] = {}

    def add(self, converted: Converted, position: int) -> Sample:
        """Keep a sample's images, if they are new and there is room, and return the sample for the index.

        Args:
            position: of its item in the source.
        """
        images = converted.images
        if images is None:
            found = self._previous.image_ranges.get(converted.digest)
            ranges = ((_MISSING, position, self._num_raw_bytes),) if found is None else found
        elif self._end + sum(map(len, images)) > self.part_bytes:
            ranges = ((_MISSING, position, sum(map(len, images))),)
        else:
            ranges = self._spooled(images)
            self._end_of_first = self._end
        label = -1 if self._label_position is None else int(converted.values[self._label_position])
        return Sample(converted.digest, label, converted.values, ranges)

    def _spooled(self, images: Iterable[bytes]) -> tuple[ImageRange, ...]:
        ranges = []
        for content in images:
            self._spool.write(content)
            ranges.append((self._number, self._end, len(content)))
            self._end += len(content)
        return tuple(ranges)

    @staticmethod
    def missing(samples: Iterable[KeyedSample]) -> dict[bytes, Missing]:
        """Those of the samples whose images have to be decoded once more, by digest."""
        ranges = ((sample.digest, *sample.images[0]) for _, sample in samples)
        return {digest: Missing(position, num) for digest, number, position, num in ranges if number == _MISSING}

    def replace_again(self, decoded: Iterable[Converted], expected: Sequence[bytes]) -> None:
        """Keep the images of samples that were decoded once more, instead of those of an earlier call.

        Args:
            expected: the digests that the samples had before, in their order.

        Raises:
            GanpipeError: an image of the source changed meanwhile, or cannot be read any more.
        """
        self._end = self._end_of_first
        self._spool.seek(self._end)
        self._spool.truncate()
        self._again.clear()
        waiting = iter(expected)
        for sample in decoded:
            if sample.unreadable is not None:
                raise GanpipeError(f"{sample.name}: could be read at first, and cannot be now: {sample.unreadable}")
            if sample.images is None or sample.digest != next(waiting, None):
                raise GanpipeError(f"{sample.name}: changed while ingest ran; run the same command again")
            self._again[sample.digest] = self._spooled(sample.images)
        if next(waiting, None) is not None:
            raise GanpipeError(FEWER_IMAGES)

    def flush(self) -> None:
        """Write what is buffered; to be called after the last `add` or `replace_again` and before a `read`."""
        self._spool.flush()

    def read(self, sample: Sample) -> list[bytes]:
        """The images of a sample, PNGs, in the order of the fields.

        Raises:
            OSError: they cannot be read, or their file changed.
        """
        ranges = self._again[sample.digest] if sample.images[0][0] == _MISSING else sample.images
        return [self._read(*one) for one in ranges]

    def _read(self, number: int, offset: int, num_bytes: int) -> bytes:
        content = os.pread(self._file(number).fileno(), num_bytes, offset)
        if len(content) != num_bytes:
            name = "the temporary file" if number == self._number else self._previous.shards[number].path
            raise OSError(f"{name} changed while it was read")
        return content

    def _file(self, number: int) -> IO[bytes]:
        if number == self._number:
            return self._spool
        if number not in self._open:
            if len(self._open) == _MAX_OPEN:
                self._close_previous()
            self._open[number] = self._previous.shards[number].path.open("rb")
        return self._open[number]

    def _close_previous(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def close(self) -> None:
        self._close_previous()
        self._spool.close()


class _HashedFile:
    """Writes a file in large parts and computes its digests. Threads do both, because both release the GIL."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._threads = ThreadPoolExecutor(3)
        self._parts: list[bytes] = []
        self._waiting = 0
        self._under_way: list[Future[None]] = []
        self.num_bytes = 0
        self.sha256, self.md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)

    def write(self, content: bytes) -> None:
        self._parts.append(content)
        self._waiting += len(content)
        if self._waiting >= _CHUNK_BYTES:
            self._send()

    def _send(self) -> None:
        self._wait()
        content = b"".join(self._parts)
        self._parts, self._waiting = [], 0
        self.num_bytes += len(content)
        work: tuple[Callable[[bytes], None], ...] = (self.sha256.update, self.md5.update, self._write_all)
        self._under_way = [self._threads.submit(one, content) for one in work]

    def _wait(self) -> None:
        for one in self._under_way:
            one.result()

    def _write_all(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]

    def flush(self) -> None:
        self._send()
        self._wait()

    def close(self) -> None:
        self._threads.shutdown()
        self._file.close()


def with_keys(samples: Iterable[Sample]) -> Iterator[KeyedSample]:
    """A split's samples with their keys. A key is the digest; further copies of a sample get a number behind it.

    Args:
        samples: sorted by digest.
    """
    previous, copies = b"", 0
    for sample in samples:
        copies = copies + 1 if sample.digest == previous else 0
        previous = sample.digest
        yield sample.digest.hex() + (f"_{copies}" if copies else ""), sample


def signature_of(samples: Iterable[KeyedSample]) -> bytes:
    """The value of the `ShardSignature` of a shard of these samples."""
    signature = ShardSignature()
    for key, sample in samples:
        signature.add(key, sample.values)
    return signature.value


def write_shard(samples: Sequence[KeyedSample], layout: Layout, store: ImageStore, path: Path, name: str) -> NotedShard:
    """Write samples as a tar to `path`, and return the note on it.

    Args:
        layout: which files a sample has.
        name: the shard's name, for the note.

    Raises:
        OSError: the disk is full, or a shard of the previous ingest is gone.
    """
    file = _HashedFile(path)
    try:
        for key, sample in samples:
            images = store.read(sample)
            for suffix, is_picture, number in layout.members:
                content = images[number] if is_picture else sample.values[number]
                file.write(tar_member(f"{key}.{suffix}", content))
        file.flush()
        file.write(tar_ending(file.num_bytes))
        file.flush()
    finally:
        file.close()
    return NotedShard(name=name, sha256=file.sha256.hexdigest(), md5=file.md5.hexdigest(), num_bytes=file.num_bytes)
