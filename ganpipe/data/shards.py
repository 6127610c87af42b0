"""Ingest: from a source's images to WebDataset tars with a manifest, on all cores, the same bytes every time.

A sample's members are `<number>.cls`, `<number>.png` and `<number>.<field>.png`; its number is its position in the
source. Every split has shards of its own, `<split>-<number>.tar`. Tar headers are plain USTAR without times or owners.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import heapq
import re
import sys
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import GanpipeError
from .images import UnreadableImage, encode_png, fit, flatten
from .manifest import (
    MANIFEST,
    SHARD_PATTERN,
    Manifest,
    Shard,
    Split,
    member_suffix,
    read_manifest,
    verify,
    write_manifest,
)
from .parallel import num_cores, ordered_map, progress
from .settings import DataSettings
from .sources.base import Description, Item, Source
from .tar import tar_ending, tar_member

__all__ = ["Manifest", "Shard", "read_manifest", "verify", "write_shards"]

_ITEMS_PER_TASK = 128
_HELD_BYTES_PER_TASK = 2**24
_FEW_ITEMS = 2000  # below this, starting processes takes longer than it saves
_NUM_NAMES_PRINTED = 20


@dataclass(frozen=True)
class _Converted:
    """A sample ready to be appended to a shard of its split, or why its item could not be read."""

    split: Split
    members: bytes
    name: str
    unreadable: str | None = None


def split_of(contents: Iterable[bytes], validation_fraction: float) -> Split:
    """The split of a sample with these raw contents: a function of them alone.

    Raising the fraction moves samples from train to validation only.
    """
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    position = int.from_bytes(digest.digest()[:8], "big") / 2**64
    return "validation" if position < validation_fraction else "train"


def _convert_item(number: int, item: Item, description: Description, settings: DataSettings) -> _Converted:
    contents: list[bytes] = []
    members: dict[str, bytes] = {}
    for field in description.image_fields:
        try:
            content = item.images[field].read()
            image = item.images[field].decode(content, settings)
            members[member_suffix(field)] = encode_png(fit(flatten(image, settings), settings))
        except UnreadableImage as error:
            return _Converted("train", b"", item.name, str(error))
        contents.append(content)
    if "label" in description.fields:
        if item.label is None or not 0 <= item.label < len(description.classes):
            raise GanpipeError(f"{item.name}: label {item.label}, but there are {len(description.classes)} classes")
        members["cls"] = str(item.label).encode()
    if "text" in description.fields:
        members["txt"] = (item.text or "").encode()
    blob = b"".join(tar_member(f"{number:09d}.{suffix}", members[suffix]) for suffix in sorted(members))
    return _Converted(item.split or split_of(contents, settings.validation_fraction), blob, item.name)


def _convert(task: list[tuple[int, Item]], description: Description, settings: DataSettings) -> list[_Converted]:
    return [_convert_item(number, item, description, settings) for number, item in task]


class _SplitWriter:
    """Appends samples to the shards of one split."""

    def __init__(self, folder: Path, split: Split, samples_per_shard: int) -> None:
        self._folder = folder
        self._split = split
        self._samples_per_shard = samples_per_shard
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._num_bytes = 0
        self._num_samples = 0
        self.shards: list[Shard] = []

    @property
    def _name(self) -> str:
        return f"{self._split}-{len(self.shards):06d}.tar"

    def append(self, members: bytes) -> None:
        if self._file is None:
            self._file = (self._folder / self._name).open("wb")
            self._digest, self._num_bytes, self._num_samples = hashlib.sha256(), 0, 0
        self._write(members)
        self._num_samples += 1
        if self._num_samples == self._samples_per_shard:
            self.close()

    def _write(self, content: bytes) -> None:
        assert self._file is not None
        self._file.write(content)
        self._digest.update(content)
        self._num_bytes += len(content)

    def close(self) -> None:
        """Finish the shard under way, if any."""
        if self._file is None:
            return
        self._write(tar_ending(self._num_bytes))
        self._file.close()
        self._file = None
        self.shards.append(
            Shard(
                name=self._name,
                sha256=self._digest.hexdigest(),
                num_bytes=self._num_bytes,
                num_samples=self._num_samples,
                split=self._split,
            )
        )

    def abandon(self) -> None:
        if self._file is not None:
            self._file.close()


def _limited(items: Iterable[Item], limit: int | None) -> Iterable[tuple[int, Item]]:
    """Numbered items, at most `limit` of them: those whose names have the smallest SHA-256, in the source's order."""
    numbered = enumerate(items)
    if limit is None:
        return numbered
    chosen = heapq.nsmallest(
        limit, numbered, key=lambda pair: (hashlib.sha256(pair[1].name.encode()).digest(), pair[0])
    )
    return sorted(chosen, key=lambda pair: pair[0])


def _tasks(numbered: Iterable[tuple[int, Item]]) -> Iterator[list[tuple[int, Item]]]:
    task, held = [], 0
    for pair in numbered:
        task.append(pair)
        held += sum(reference.held_bytes for reference in pair[1].images.values())
        if len(task) == _ITEMS_PER_TASK or held > _HELD_BYTES_PER_TASK:
            yield task
            task, held = [], 0
    if task:
        yield task


def _clear(folder: Path) -> None:
    """Remove an earlier ingest's files, its manifest first, and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in sorted(folder.iterdir()):
        if re.match(SHARD_PATTERN, path.name):
            path.unlink()


def _report_skipped(skipped: list[_Converted], out: Path) -> None:
    if not skipped:
        return
    print(f"skipped {len(skipped)} unreadable image(s), listed in {out / MANIFEST}:", file=sys.stderr)
    for item in skipped[:_NUM_NAMES_PRINTED]:
        print(f"  {item.name}: {item.unreadable}", file=sys.stderr)
    if len(skipped) > _NUM_NAMES_PRINTED:
        print(f"  ... and {len(skipped) - _NUM_NAMES_PRINTED} more", file=sys.stderr)


def write_shards(settings: DataSettings, source: Source, out: Path, num_processes: int | None = None) -> Manifest:
    """Ingest: write the source's images into `out` as shards, then their manifest.

    The manifest is written last and atomically, so a folder that has one is complete. Shards of an earlier ingest in
    `out` are removed first. The bytes written depend on settings and images alone, not on `num_processes`.

    Args:
        num_processes: that decode and encode; all cores when None, and only this process for few images.

    Raises:
        GanpipeError: nothing to ingest, an image is unreadable (under `unreadable: error`), the disk is full.
    """
    source.check()
    description = source.describe()
    items = source.items()
    numbered = _limited(items, settings.limit)
    total = len(numbered) if isinstance(numbered, list) else len(items) if isinstance(items, Sized) else None
    if num_processes is None:
        num_processes = num_cores() if total is None or total > _FEW_ITEMS else 1
    convert = functools.partial(_convert, description=description, settings=settings)
    skipped: list[_Converted] = []
    splits: tuple[Split, ...] = ("train", "validation")
    writers = {split: _SplitWriter(out, split, settings.samples_per_shard) for split in splits}
    try:
        _clear(out)
        results = ordered_map(convert, _tasks(numbered), num_processes)
        with progress("ingest", total, "image") as bar, contextlib.closing(results):
            for converted in results:
                for sample in converted:
                    if sample.unreadable is None:
                        writers[sample.split].append(sample.members)
                    elif settings.unreadable == "skip":
                        skipped.append(sample)
                    else:
                        raise GanpipeError(
                            f"{sample.name}: {sample.unreadable}; remove it, or set data.unreadable to skip"
                        )
                bar.update(len(converted))
        for writer in writers.values():
            writer.close()
    except OSError as error:
        raise GanpipeError(f"{out}: ingest cannot write its shards: {error.strerror or error}") from error
    finally:
        for writer in writers.values():
            writer.abandon()
    _report_skipped(skipped, out)
    if not writers["train"].shards:
        found = sum(shard.num_samples for shard in writers["validation"].shards)
        raise GanpipeError(
            f"data.source {settings.source}: no image is left for training ({len(skipped)} unreadable, {found} in the "
            f"validation split); add images or lower data.validation_fraction"
        )
    manifest = Manifest(
        source=settings.source,
        description=description.text,
        homepage=description.homepage,
        licence=description.licence,
        image_size=settings.image_size,
        channels=settings.channels,
        fields=description.fields,
        classes=description.classes,
        shards=tuple(shard for split in splits for shard in writers[split].shards),
        skipped=tuple(item.name for item in skipped),
    )
    write_manifest(out, manifest)
    return manifest
