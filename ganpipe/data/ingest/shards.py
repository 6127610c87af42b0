"""Ingest: from a source's images to WebDataset tars with a manifest, on all cores. Equal inputs give equal bytes.

A sample's files in a shard are `<digest>.cls`, `<digest>.png`, `<digest>.<field>.png` and `<digest>.txt`. Every split
has its own shards, `<split>-<number>.tar`; `shard_assignment.py` decides which samples a shard holds. Tar headers are
plain USTAR without times or owners. A second ingest decodes only images that no shard of the previous ingest holds, and
reuses the shards whose samples are the same.
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
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...cpus import usable_cpus
from ...errors import GanpipeError
from ...fields import Fields, Tokens, main_label
from ...words import NUM_RESERVED, vocabulary, words_of
from ..images import value_range
from ..parallel import ordered_map, progress, rare_collections
from ..settings import DataSettings
from ..shards.left_out import summary_lines
from ..shards.manifest import (
    MANIFEST,
    SHARD_PATTERN,
    SPLITS,
    LeftOut,
    Manifest,
    Shard,
    Split,
    read_manifest,
    verify,
    write_manifest,
)
from ..shards.store import ShardStore
from ..sources.base import Classes, Description, Item, Items, Source
from . import class_counts
from .conversion import Converted, check_values, conversion_key, convert, split_of
from .originals import Originals
from .previous import IngestHistory, Layout, NotedShard, PreviousIngest, find_previous, write_note
from .sample_index import SampleIndex
from .shard_assignment import shard_sizes
from .shard_writer import ImageStore, find_unchanged_shard, reuse_shard, with_keys, write_shard

__all__ = ["IngestHistory", "Manifest", "Shard", "read_manifest", "split_of", "verify", "write_shards"]

MapTasks = Callable[[Callable[[Any], Any], Iterable[Any]], Generator[Any, None, None]]
"""(function, tasks) -> the results in the order of the tasks, as `ordered_map` gives them."""
_ITEMS_PER_TASK = 128
_HELD_BYTES_PER_TASK = 2**24
_FEW_ITEMS = 2000  # below this, starting processes takes longer than it saves
_NUM_NAMES_PRINTED = 20
_NUM_ODD_NAMED = 5
_PARTIAL = ".partial-"
_NUM_MOVED_AT_ONCE = 4


@dataclass
class _Gathered:
    """What the items became.

    Attributes:
        samples: all samples by split.
        skipped: the items that could not be read.
        num_decoded: how many samples were decoded, not found in the previous ingest.
        blank: images in which a person would see nothing, by their `blank_kind`.
        originals: counts what the images were.
    """

    samples: SampleIndex
    skipped: list[Converted]
    originals: Originals
    num_decoded: int = 0
    blank: dict[str, _NamedImages] = field(default_factory=dict)


@dataclass
class _NamedImages:
    """A number of images, and the names of the first ones."""

    number: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.number += 1
        if len(self.names) < _NUM_ODD_NAMED:
            self.names.append(name)


@dataclass
class _Written:
    """The shards, the notes on them, and how many of them were written and not reused."""

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
        held += sum(reference.num_held_bytes for name in item.images for reference in item.references(name))
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
    for line in summary_lines(left_out):
        print(f"  {line}", file=sys.stderr)


def _report_blank(blank: dict[str, _NamedImages]) -> None:
    for what, images in sorted(blank.items()):
        more = ", ..." if images.number > len(images.names) else ""
        print(
            f"warning: {images.number:,} image(s) are {what}: {', '.join(images.names)}{more}; look at them, and at "
            "data.value_range and data.background",
            file=sys.stderr,
        )


def _report_classes(names: Sequence[str], samples: SampleIndex, limit: int | None) -> None:
    """Print images per class and warnings about them, because a long training would not show such mistakes."""
    if not names:
        return
    train, validation = (samples.num_per_label(split) for split in SPLITS)
    for line in class_counts.table(names, train, validation):
        print(line)
    for line in (*class_counts.name_warnings(names), *class_counts.count_warnings(names, train, validation, limit)):
        print(f"warning: {line}", file=sys.stderr)


def _convert_all(
    items: Iterable[Item],
    convert_items: Callable[[Sequence[Item]], list[Converted]],
    num_processes: int | None,
    map_tasks: MapTasks | None,
    what: str,
) -> Generator[Converted, None, None]:
    """The results of `convert_items` for all items, in the order of the items, with a progress bar.

    Args:
        num_processes: all cores when None, but this process only if there are few items.
        map_tasks: does the work elsewhere.
        what: the title of the progress bar.
    """
    total = len(items) if isinstance(items, Sized) else None
    if num_processes is None:
        num_processes = usable_cpus() if total is None or total > _FEW_ITEMS else 1
    tasks = _tasks(items)
    results = ordered_map(convert_items, tasks, num_processes) if map_tasks is None else map_tasks(convert_items, tasks)
    with progress(what, total, "image") as bar, contextlib.closing(results):
        for converted in results:
            yield from converted
            bar.update(len(converted))


def _gather(
    settings: DataSettings,
    source: Source,
    description: Description,
    items: Iterable[Item],
    samples: SampleIndex,
    store: ImageStore,
    known_digests: Path | None,
    num_processes: int | None,
    map_tasks: MapTasks | None,
    originals: Originals,
) -> _Gathered:
    """Read all items, decode those whose digests are not known, and add them to `samples` and `store`.

    Images of more than 8 bits whose range is chosen from the dataset are read twice, because the range is known only
    after the last image.
    """
    gathered = _Gathered(samples, [], originals)
    convert_items = functools.partial(convert, description=description, settings=settings, known_digests=known_digests)
    waiting = array("Q")
    extents: dict[value_range.Kind, value_range.Extent] = {}
    with contextlib.closing(_convert_all(items, convert_items, num_processes, map_tasks, "ingest")) as results:
        for position, sample in enumerate(results):
            if sample.extents:
                waiting.append(position)
                extents = value_range.merge_extents([*extents.values(), *sample.extents])
            else:
                _keep(sample, settings, gathered, store)
    if waiting:
        second_pass = items if isinstance(items, Sized) else source.items()  # a stream can be read once only
        convert_items = functools.partial(convert_items, decided=_choose_ranges(extents))
        chosen = Items(len(waiting), functools.partial(_items_at, second_pass, waiting))
        with contextlib.closing(
            _convert_all(chosen, convert_items, num_processes, map_tasks, "ingest, more than 8 bits")
        ) as results:
            for sample in results:
                _keep(sample, settings, gathered, store)
    if description.classes:
        samples.ensure_label_is_trained()
    samples.sort()
    return gathered


def _keep(sample: Converted, settings: DataSettings, gathered: _Gathered, store: ImageStore) -> None:
    if sample.unreadable is None:
        gathered.samples.add(sample.split, store.add(sample), sample.split_is_given)
        gathered.num_decoded += sample.images is not None
        gathered.originals.add(sample.facts, settings)
        if sample.blank_kind is not None:
            gathered.blank.setdefault(sample.blank_kind, _NamedImages()).add(sample.name)
    elif settings.unreadable == "skip":
        gathered.skipped.append(sample)
    else:
        raise GanpipeError(f"{sample.name}: {sample.unreadable}; remove it, or set data.unreadable to skip")


def _choose_ranges(extents: Mapping[value_range.Kind, value_range.Extent]) -> dict[value_range.Kind, value_range.Range]:
    """The dataset's range of each kind of image; prints a warning for each that is not the full range of its type."""
    decided = {kind: value_range.choose_range(extent) for kind, extent in extents.items()}
    for kind, extent in extents.items():
        if (range_warning := value_range.range_warning(extent, decided[kind])) is not None:
            print(f"warning: {range_warning}", file=sys.stderr)
    return decided


def _items_at(items: Iterable[Item], positions: Sequence[int]) -> Iterator[Item]:
    """The items at these positions, which have to be sorted."""
    wanted = iter(positions)
    position = next(wanted, None)
    for found, item in enumerate(items):
        if found == position:
            yield item
            position = next(wanted, None)


@contextlib.contextmanager
def _known_digests_file(previous: PreviousIngest) -> Iterator[Path | None]:
    """A temporary file with the digests of all samples of the previous ingest; None if there are none."""
    if not previous.image_ranges:
        yield None
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(previous.image_ranges))
        file.flush()
        yield Path(file.name)


def _write_all(
    samples: SampleIndex,
    samples_per_shard: int,
    layout: Layout,
    store: ImageStore,
    previous: PreviousIngest,
    out: Path,
    take: Callable[[Path, NotedShard], None],
) -> _Written:
    """Write all shards under temporary names.

    Args:
        take: called with each shard when it is complete.
    """
    written = _Written()
    for split in SPLITS:
        waiting = with_keys(samples.in_order(split))
        num_between = functools.partial(samples.num_between, split)
        sizes = shard_sizes(samples.num_samples(split), num_between, samples_per_shard)
        for number, size in enumerate(sizes):
            name, chosen = f"{split}-{number:06d}.tar", list(itertools.islice(waiting, size))
            path = out / f"{_PARTIAL}{name}"
            if (same := find_unchanged_shard(chosen, previous)) is not None:
                noted = reuse_shard(same, out, path, name)
            else:
                noted = write_shard(chosen, layout, store, path, name)
                written.num_new += 1
            take(path, noted)
            written.notes.append(noted)
            about = noted.model_dump(exclude={"md5"})
            written.shards.append(Shard(**about, num_samples=size, split=split))
    return written


def _remove_matching(folder: Path, pattern: str) -> None:
    for path in sorted(folder.iterdir()):
        if re.match(pattern, path.name):
            path.unlink()


@contextlib.contextmanager
def _partial_files(folder: Path) -> Iterator[None]:
    """Removes all partial files from the folder, before and after: also those of an ingest that was killed."""
    pattern = rf"^{re.escape(_PARTIAL)}"
    folder.mkdir(parents=True, exist_ok=True)
    _remove_matching(folder, pattern)
    try:
        yield
    finally:
        _remove_matching(folder, pattern)


def _publish(out: Path, manifest: Manifest) -> None:
    """Replace an earlier ingest's shards by the new ones. The old manifest is removed first and the new one written
    last. Other files in the folder are not touched."""
    (out / MANIFEST).unlink(missing_ok=True)
    _remove_matching(out, SHARD_PATTERN)
    for shard in manifest.shards:
        if (path := out / f"{_PARTIAL}{shard.name}").exists():  # else it is in data.store
            path.rename(out / shard.name)
    write_manifest(out, manifest)


@contextlib.contextmanager
def _moving_to(store: ShardStore | None) -> Iterator[Callable[[Path, NotedShard], None]]:
    """Moves shards into the store while others are written; at the end all are there. Does nothing without a store."""
    if store is None:
        yield lambda path, noted: None
        return
    moving: deque[Future[bool]] = deque()
    num_new = num_moved = 0

    def wait(most: int) -> None:
        nonlocal num_new, num_moved
        while len(moving) > most:
            num_new += moving.popleft().result()
            num_moved += 1

    with ThreadPoolExecutor(_NUM_MOVED_AT_ONCE) as threads:

        def take(path: Path, noted: NotedShard) -> None:
            wait(_NUM_MOVED_AT_ONCE)  # so that few shards are on the disk at a time
            moving.append(threads.submit(store.move_in, path, noted.sha256))

        try:
            yield take
            wait(0)
        finally:
            for future in moving:
                future.cancel()
    print(f"data.store: {num_new:,} of {num_moved:,} shards are new there")


def _change_summary(previous: PreviousIngest, gathered: _Gathered, written: _Written) -> str:
    """One line on what changed since the previous ingest."""
    rewritten = f"{written.num_new} of {len(written.shards)} shards rewritten"
    if previous.num_lost:
        return (
            f"{previous.num_lost} shard(s) of the last ingest are gone or damaged: {gathered.num_decoded:,} images "
            f"decoded, {rewritten}"
        )
    num_added, num_kept = 0, 0
    for digest, number in gathered.samples.digests():
        kept = min(number, previous.digests[digest])
        num_added, num_kept = num_added + number - kept, num_kept + kept
    num_removed = previous.digests.total() - num_kept
    plural = "" if num_added == 1 else "s"
    return f"{num_added:,} image{plural} added, {num_removed:,} removed: {rewritten}"


@rare_collections()
def write_shards(
    settings: DataSettings,
    source: Source,
    out: Path,
    num_processes: int | None = None,
    history: IngestHistory | None = None,
    originals: Originals | None = None,
    store: ShardStore | None = None,
    map_tasks: MapTasks | None = None,
) -> Manifest:
    """Ingest: write the source's images into `out` as shards, then their manifest.

    The manifest is written last and atomically, so a folder that has one is complete. An earlier ingest's shards in
    `out` stay until the new ones are ready. The bytes written depend on settings and images only: not on
    `num_processes`, and not on earlier ingests.

    Args:
        out: the folder of the shards; it is made if it does not exist.
        num_processes: processes that decode and encode; all cores when None, but this process only if there are few
            images.
        history: where notes on earlier ingests are; None decodes everything.
        originals: counts what the images were before ingest.
        store: takes the shards; `out` then gets the manifest alone.
        map_tasks: decodes and encodes on other hosts, which read the images where the items say they are.

    Returns:
        The manifest that was written.

    Raises:
        GanpipeError: there is nothing to ingest, an image is unreadable (under `unreadable: error`), or the disk is
            full.
    """
    source.check()
    source.check_against(settings)
    if store is not None:
        store.require_writable()
    description = source.describe()
    items = _limited(source.items(), settings.limit)
    key = f"{settings.source}-{conversion_key(settings, description)}"
    fields: Fields = description.specs(settings)
    layout = Layout.of(fields)
    if isinstance(items, Sized):  # so that errors in labels and texts are found before any image is read
        for item in items:
            check_values(item, description, settings)
    if store is not None or map_tasks is not None:
        history = None  # the shards of an earlier ingest are not on this disk, or not on those of other hosts
    previous = find_previous(history, key, out, layout)
    try:
        with (
            _partial_files(out),
            contextlib.closing(ImageStore(out, previous, _label_position(description))) as images,
            contextlib.closing(SampleIndex()) as samples,
            _known_digests_file(previous) as known_digests,
        ):
            gathered = _gather(
                settings,
                source,
                description,
                items,
                samples,
                images,
                known_digests,
                num_processes,
                map_tasks,
                originals or Originals(),
            )
            _report_skipped(gathered.skipped, out)
            _report_left_out(source.left_out(), out)
            _report_blank(gathered.blank)
            _require_training_images(settings, gathered)
            _report_classes(description.classes, samples, settings.limit)
            images.flush()
            with _moving_to(store) as take:
                written = _write_all(samples, settings.samples_per_shard, layout, images, previous, out, take)
            fields, names = _final_fields(fields, description, settings, samples)
            manifest = _manifest(settings, description, fields, names, written, gathered.skipped, source.left_out())
            _publish(out, manifest)
            change = _change_summary(previous, gathered, written) if previous.num_lost is not None else None
        if history is not None:
            write_note(history, key, written.notes)
    except OSError as error:
        raise GanpipeError(f"{out}: ingest cannot write its shards: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise GanpipeError(
            f"ingest cannot sort its samples in the folder for temporary files ({error}); set TMPDIR to one with room"
        ) from error
    if change is not None:
        print(change)
    return manifest


def _label_position(description: Description) -> int | None:
    """Index of the main label among a sample's values; None if there are no labels."""
    values = description.value_fields
    label = main_label(name for name in values if isinstance(description.fields[name], Classes))
    return None if label is None else values.index(label)


def _texts(samples: SampleIndex, split: Split, number: int) -> Iterator[str]:
    for sample in samples.in_order(split):
        yield sample.values[number].decode()


def _final_fields(
    fields: Fields, description: Description, settings: DataSettings, samples: SampleIndex
) -> tuple[Fields, dict[str, tuple[str, ...]]]:
    """The fields with the real length of the texts, and the names of classes and words by field."""
    found, names = dict(fields), dict[str, tuple[str, ...]]()
    values = description.value_fields
    for number, name in enumerate(values):
        field = description.fields[name]
        if isinstance(field, Classes):
            names[name] = field.names
            continue
        train, validation = (functools.partial(_texts, samples, split, number) for split in SPLITS)
        names[name] = vocabulary(train(), settings.vocabulary_size)
        longest = max(len(words_of(text)) for text in itertools.chain(train(), validation()))
        found[name] = Tokens(length=longest, num_words=len(names[name]) + NUM_RESERVED)
    return found, names


def _manifest(
    settings: DataSettings,
    description: Description,
    fields: Fields,
    names: Mapping[str, tuple[str, ...]],
    written: _Written,
    skipped: Iterable[Converted],
    left_out: tuple[LeftOut, ...],
) -> Manifest:
    return Manifest(
        source=settings.source,
        description=description.text,
        homepage=description.homepage,
        licence=description.licence,
        fields=dict(fields),
        main=description.main,
        names=dict(names),
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
