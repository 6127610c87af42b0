"""Writes shards: images are collected in a temporary file until all samples are known, then written shard by shard."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

from ..shards.tar import tar_ending, tar_member
from .conversion import Converted
from .previous import FoundShard, ImageRange, Layout, NotedShard, PreviousIngest, ShardSignature
from .sample_index import Sample

_CHUNK_BYTES = 2**20
_MAX_OPEN = 32


KeyedSample = tuple[str, Sample]
"""A sample's key in its shard, and the sample."""


class ImageStore:
    """The images of all samples. New images go to an anonymous file, which vanishes even if the process is killed; the
    images of the previous ingest are read from its shards."""

    def __init__(self, folder: Path, previous: PreviousIngest, label_position: int | None = None) -> None:
        """
        Args:
            folder: where the anonymous file is made.
            previous: the shards of the previous ingest.
            label_position: index of the main label among a sample's values; None if there are no labels.
        """
        self._previous, self._label_position = previous, label_position
        self._spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self._number = len(previous.shards)
        self._end = 0
        self._open: dict[int, IO[bytes]] = {}

    def add(self, converted: Converted) -> Sample:
        """Keep a sample's images, unless the previous ingest has them, and return the sample for the index."""
        if converted.images is None:
            images = self._previous.image_ranges[converted.digest]
        else:
            places = []
            for content in converted.images:
                self._spool.write(content)
                places.append((self._number, self._end, len(content)))
                self._end += len(content)
            images = tuple(places)
        label = -1 if self._label_position is None else int(converted.values[self._label_position])
        return Sample(converted.digest, label, converted.values, images)

    def flush(self) -> None:
        """Write what is buffered; to be called after the last `add` and before the first `read`."""
        self._spool.flush()

    def read(self, place: ImageRange) -> bytes:
        """The content of an image, a PNG.

        Raises:
            OSError: it cannot be read, or its file changed.
        """
        number, offset, num_bytes = place
        content = os.pread(self._file(number).fileno(), num_bytes, offset)
        if len(content) != num_bytes:
            raise OSError(f"{self._previous.shards[number].path} changed while it was read")
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


def find_unchanged_shard(samples: Sequence[KeyedSample], previous: PreviousIngest) -> FoundShard | None:
    """The shard of the previous ingest that has the same bytes as a shard of these samples; None if there is none."""
    if not previous.shards:
        return None
    signature = ShardSignature()
    for key, sample in samples:
        signature.add(key, sample.values)
    return previous.by_signature.get(signature.value)


def reuse_shard(shard: FoundShard, folder: Path, path: Path, name: str) -> NotedShard:
    """Put a shard of the previous ingest at `path`: a hard link if the shard lies in `folder`, else a copy.

    Args:
        name: the shard's new name, for the note.

    Returns:
        The note on the shard.
    """
    if shard.path.parent == folder:
        with contextlib.suppress(OSError):  # a file system without hard links
            os.link(shard.path, path)
    if not path.exists():
        shutil.copyfile(shard.path, path)
    return shard.noted.model_copy(update={"name": name})


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
            for suffix, is_picture, number in layout.members:
                content = store.read(sample.images[number]) if is_picture else sample.values[number]
                file.write(tar_member(f"{key}.{suffix}", content))
        file.flush()
        file.write(tar_ending(file.num_bytes))
        file.flush()
    finally:
        file.close()
    return NotedShard(name=name, sha256=file.sha256.hexdigest(), md5=file.md5.hexdigest(), num_bytes=file.num_bytes)
