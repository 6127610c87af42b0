"""Ingest: from a source's images to WebDataset tars with a manifest, on all cores, the same bytes every time.

A sample's members are `<digest>.cls`, `<digest>.png`, `<digest>.<field>.png` and `<digest>.txt`. Every split has shards
of its own, `<split>-<number>.tar`; which samples share one is decided in arrangement.py. Tar headers are plain USTAR
without times or owners. Ingesting again decodes only images that no shard of the last ingest holds, and leaves shards
as they are whose samples are the same.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import heapq
import itertools
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path

from ..cpus import usable_cpus
from ..errors import GanpipeError
from .arrangement import shard_sizes
from .conversion import Converted, conversion_key, convert, split_of
from .earlier import Earlier, Memory, NotedShard, recall, write_note
from .left_out import lines
from .manifest import MANIFEST, SHARD_PATTERN, LeftOut, Manifest, Shard, Split, read_manifest, verify, write_manifest
from .parallel import ordered_map, progress
from .sample_index import SampleIndex
from .settings import DataSettings
from .shard_files import Store, copy_shard, keyed, unchanged, write_shard
from .sources.base import Description, Item, Source

__all__ = ["Manifest", "Memory", "Shard", "read_manifest", "split_of", "verify", "write_shards"]

SPLITS: tuple[Split, ...] = ("train", "validation")
_ITEMS_PER_TASK = 128
_HELD_BYTES_PER_TASK = 2**24
_FEW_ITEMS = 2000  # below this, starting processes takes longer than it saves
_NUM_NAMES_PRINTED = 20
_PARTIAL = ".partial-"


@dataclass
class _Gathered:
    """All samples by split, and what could not be read."""

    samples: SampleIndex
    skipped: list[Converted]
    num_decoded: int = 0


@dataclass
class _Written:
    """The shards, notes on them, and how many of them no earlier ingest wrote."""

    shards: list[Shard] = field(default_factory=list)
    notes: list[NotedShard] = field(default_factory=list)
    num_new: int = 0


def _limited(items: Iterable[Item], limit: int | None) -> Iterable[Item]:
    """At most `limit` items: those whose names have the smallest SHA-256, in the source's order."""
    if limit is None:
        return items
    chosen = heapq.nsmallest(
        limit, enumerate(items), key=lambda pair: (hashlib.sha256(pair[1].name.encode()).digest(), pair[0])
    )
    return [item for _, item in sorted(chosen, key=lambda pair: pair[0])]


def _tasks(items: Iterable[Item]) -> Iterator[list[Item]]:
    task: list[Item] = []
    held = 0
    for item in items:
        task.append(item)
        held += sum(reference.held_bytes for reference in item.images.values())
        if len(task) == _ITEMS_PER_TASK or held > _HELD_BYTES_PER_TASK:
            yield task
            task, held = [], 0
    if task:
        yield task


def _report_skipped(skipped: list[Converted], out: Path) -> None:
    if not skipped:
        return
    print(f"skipped {len(skipped)} unreadable image(s), listed in {out / MANIFEST}:", file=sys.stderr)
    for item in skipped[:_NUM_NAMES_PRINTED]:
        print(f"  {item.name}: {item.unreadable}", file=sys.stderr)
    if len(skipped) > _NUM_NAMES_PRINTED:
        print(f"  ... and {len(skipped) - _NUM_NAMES_PRINTED} more", file=sys.stderr)


def _report_left_out(left_out: Sequence[LeftOut], out: Path) -> None:
    if left_out:
        print(f"left out {sum(one.number for one in left_out):,}, listed in {out / MANIFEST}:", file=sys.stderr)
    for line in lines(left_out):
        print(f"  {line}", file=sys.stderr)


def _gather(
    settings: DataSettings,
    description: Description,
    items: Iterable[Item],
    samples: SampleIndex,
    store: Store,
    known: Path | None,
    num_processes: int | None,
) -> _Gathered:
    """Read all items, decode those whose digests are not known, and keep what becomes of them."""
    total = len(items) if isinstance(items, Sized) else None
    if num_processes is None:
        num_processes = usable_cpus() if total is None or total > _FEW_ITEMS else 1
    function = functools.partial(convert, description=description, settings=settings, known=known)
    gathered = _Gathered(samples, [])
    results = ordered_map(function, _tasks(items), num_processes)
    with progress("ingest", total, "image") as bar, contextlib.closing(results):
        for converted in results:
            for sample in converted:
                if sample.unreadable is None:
                    samples.add(sample.split, store.add(sample))
                    gathered.num_decoded += sample.images is not None
                elif settings.unreadable == "skip":
                    gathered.skipped.append(sample)
                else:
                    raise GanpipeError(f"{sample.name}: {sample.unreadable}; remove it, or set data.unreadable to skip")
            bar.update(len(converted))
    samples.sort()
    return gathered


@contextlib.contextmanager
def _known_file(earlier: Earlier) -> Iterator[Path | None]:
    """The digests whose images earlier shards hold, in a file for all processes."""
    if not earlier.places:
        yield None
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(earlier.places))
        file.flush()
        yield Path(file.name)


def _write_all(
    samples: SampleIndex, samples_per_shard: int, fields: Sequence[str], store: Store, earlier: Earlier, out: Path
) -> _Written:
    """Write the shards under partial names."""
    written = _Written()
    for split in SPLITS:
        waiting = keyed(samples.in_order(split))
        num_between = functools.partial(samples.num_between, split)
        sizes = shard_sizes(samples.num_samples(split), num_between, samples_per_shard)
        for number, size in enumerate(sizes):
            name, chosen = f"{split}-{number:06d}.tar", list(itertools.islice(waiting, size))
            path = out / f"{_PARTIAL}{name}"
            if (same := unchanged(chosen, fields, earlier)) is not None:
                noted = copy_shard(same, out, path, name)
            else:
                noted = write_shard(chosen, fields, store, path, name)
                written.num_new += 1
            written.notes.append(noted)
            about = noted.model_dump(exclude={"md5"})
            written.shards.append(Shard(**about, num_samples=size, split=split))
    return written


def _clear(folder: Path, pattern: str) -> None:
    for path in sorted(folder.iterdir()):
        if re.match(pattern, path.name):
            path.unlink()


@contextlib.contextmanager
def _partial_files(folder: Path) -> Iterator[None]:
    """None is there before or after, whatever happens; those of a killed ingest neither."""
    pattern = rf"^{re.escape(_PARTIAL)}"
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder, pattern)
    try:
        yield
    finally:
        _clear(folder, pattern)


def _publish(out: Path, manifest: Manifest) -> None:
    """Put new shards in the place of an earlier ingest's, its manifest first; nothing else in the folder is touched."""
    (out / MANIFEST).unlink(missing_ok=True)
    _clear(out, SHARD_PATTERN)
    for shard in manifest.shards:
        (out / f"{_PARTIAL}{shard.name}").rename(out / shard.name)
    write_manifest(out, manifest)


def _change(earlier: Earlier, gathered: _Gathered, written: _Written) -> str:
    """One line: what is new since the last ingest."""
    rewritten = f"{written.num_new} of {len(written.shards)} shards rewritten"
    if earlier.num_lost:
        return (
            f"{earlier.num_lost} shard(s) of the last ingest are gone or damaged: {gathered.num_decoded:,} images "
            f"decoded, {rewritten}"
        )
    num_added, num_kept = 0, 0
    for digest, number in gathered.samples.digests():
        kept = min(number, earlier.digests[digest])
        num_added, num_kept = num_added + number - kept, num_kept + kept
    num_removed = earlier.digests.total() - num_kept
    plural = "" if num_added == 1 else "s"
    return f"{num_added:,} image{plural} added, {num_removed:,} removed: {rewritten}"


def write_shards(
    settings: DataSettings, source: Source, out: Path, num_processes: int | None = None, memory: Memory | None = None
) -> Manifest:
    """Ingest: write the source's images into `out` as shards, then their manifest.

    The manifest is written last and atomically, so a folder that has one is complete. An earlier ingest's shards in
    `out` stay until the new ones are ready. The bytes written depend on settings and images alone: not on
    `num_processes`, nor on what was ingested before.

    Args:
        num_processes: that decode and encode; all cores when None, and only this process for few images.
        memory: where notes on earlier ingests are; None decodes everything.

    Raises:
        GanpipeError: nothing to ingest, an image is unreadable (under `unreadable: error`), the disk is full.
    """
    source.check()
    description = source.describe()
    items = _limited(source.items(), settings.limit)
    key = f"{settings.source}-{conversion_key(settings, description)}"
    earlier = recall(memory, key, out, description.image_fields)
    try:
        with (
            _partial_files(out),
            contextlib.closing(Store(out, earlier)) as store,
            contextlib.closing(SampleIndex()) as samples,
            _known_file(earlier) as known,
        ):
            gathered = _gather(settings, description, items, samples, store, known, num_processes)
            _report_skipped(gathered.skipped, out)
            _report_left_out(source.left_out(), out)
            _require_training_images(settings, gathered)
            store.flush()
            written = _write_all(samples, settings.samples_per_shard, description.fields, store, earlier, out)
            manifest = _manifest(settings, description, written, gathered.skipped, source.left_out())
            _publish(out, manifest)
            change = _change(earlier, gathered, written) if earlier.num_lost is not None else None
        if memory is not None:
            write_note(memory, key, written.notes)
    except OSError as error:
        raise GanpipeError(f"{out}: ingest cannot write its shards: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise GanpipeError(
            f"ingest cannot sort its samples in the folder for temporary files ({error}); set TMPDIR to one with room"
        ) from error
    if change is not None:
        print(change)
    return manifest


def _manifest(
    settings: DataSettings,
    description: Description,
    written: _Written,
    skipped: Iterable[Converted],
    left_out: tuple[LeftOut, ...],
) -> Manifest:
    return Manifest(
        source=settings.source,
        description=description.text,
        homepage=description.homepage,
        licence=description.licence,
        image_size=settings.image_size,
        channels=settings.channels,
        fields=description.fields,
        classes=description.classes,
        shards=tuple(written.shards),
        skipped=tuple(item.name for item in skipped),
        left_out=left_out,
    )


def _require_training_images(settings: DataSettings, gathered: _Gathered) -> None:
    if not gathered.samples.num_samples("train"):
        raise GanpipeError(
            f"data.source {settings.source}: no image is left for training ({len(gathered.skipped)} unreadable, "
            f"{gathered.samples.num_samples('validation')} in the validation split); add images or lower "
            "data.validation_fraction"
        )
