"""Ingest: from a source's images to WebDataset tars with a manifest, on all cores. Equal inputs give equal bytes.

A sample's files in a shard are `<digest>.cls`, `<digest>.png`, `<digest>.<field>.png` and `<digest>.txt`. Every split
has its own shards, `<split>-<number>.tar`; `shard_assignment.py` decides which samples a shard holds. Tar headers are
plain USTAR without times or owners. A second ingest decodes only images that no shard of the previous ingest holds, and
reuses the shards whose samples are the same.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import re
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import GanpipeError
from ...fields import Fields, FieldSpec, Tokens, main_label
from ...words import NUM_RESERVED, vocabulary, words_of
from ..access.host_cache import cache_limit
from ..parallel import rare_collections
from ..settings import DataSettings
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
from ..sources.base import Classes, Description, Source
from . import messages
from .conversion import Converted, conversion_key, split_of
from .originals import Originals
from .previous import IngestHistory, Layout, NotedShard, PreviousIngest, find_previous, write_note
from .reading import MapTasks, Reading
from .sample_index import SampleIndex
from .shard_assignment import shard_sizes
from .shard_writer import ImageStore, KeyedSample, Missing, signature_of, with_keys, write_shard
from .store_journal import StoreJournal

__all__ = ["IngestHistory", "Manifest", "Shard", "read_manifest", "split_of", "verify", "write_shards"]

_PARTIAL = ".partial-"
_NUM_MOVED_AT_ONCE = 4
_MAX_SAMPLES_IN_PART, _MAX_SAMPLES_OF_LISTED = 500_000, 10_000
"""Samples that are decoded once more at a time: of a stream, which is read from its beginning for them, and of items
that are found by themselves. The fewer, the less is lost when ingest is killed."""


@dataclass
class _Gathered:
    """What the items became.

    Attributes:
        samples: all samples by split.
        skipped: the items that could not be read.
        num_decoded: how many samples were decoded, because no earlier ingest is known to have decoded them.
        blank: images in which a person would see nothing, by their `blank_kind`.
    """

    samples: SampleIndex
    skipped: list[Converted] = field(default_factory=list)
    num_decoded: int = 0
    blank: dict[str, messages.NamedImages] = field(default_factory=dict)


@dataclass
class _Planned:
    """A shard before it is written.

    Attributes:
        path: where it is written, under a temporary name.
        signature: the value of its `ShardSignature`.
        reused: the note on it if an earlier ingest made it, and it is where it belongs.
    """

    name: str
    split: Split
    path: Path
    samples: list[KeyedSample]
    signature: bytes
    reused: NotedShard | None


@dataclass
class _Written:
    """The shards, the notes on them, and how many of them were written and not reused."""

    shards: list[Shard] = field(default_factory=list)
    notes: list[NotedShard] = field(default_factory=list)
    num_new: int = 0


def _gather(
    settings: DataSettings,
    reading: Reading,
    samples: SampleIndex,
    images: ImageStore,
    earlier: PreviousIngest | StoreJournal,
    originals: Originals,
) -> _Gathered:
    """Read all items, decode those whose digests are not known, and add them to `samples` and `images`."""
    gathered = _Gathered(samples)
    with contextlib.closing(reading.all(earlier.known_digests)) as results:
        for position, sample in results:
            if sample.unreadable is None:
                samples.add(sample.split, images.add(sample, position), sample.split_is_given)
                originals.add(sample.facts, settings)
                if sample.images is not None:
                    gathered.num_decoded += 1
                    if sample.blank_kind is None and isinstance(earlier, StoreJournal):  # others are told of again
                        earlier.note_decoded(sample.digest)
                if sample.blank_kind is not None:
                    gathered.blank.setdefault(sample.blank_kind, messages.NamedImages()).add(sample.name)
            elif settings.unreadable == "skip":
                gathered.skipped.append(sample)
            else:
                raise GanpipeError(f"{sample.name}: {sample.unreadable}; remove it, or set data.unreadable to skip")
    if reading.description.classes:
        samples.ensure_label_is_trained()
    samples.sort()
    images.flush()
    return gathered


def _planned(
    samples: SampleIndex, samples_per_shard: int, earlier: PreviousIngest | StoreJournal, out: Path
) -> Iterator[_Planned]:
    for split in SPLITS:
        waiting = with_keys(samples.in_order(split))
        num_between = functools.partial(samples.num_between, split)
        sizes = shard_sizes(samples.num_samples(split), num_between, samples_per_shard)
        for number, size in enumerate(sizes):
            name, chosen = f"{split}-{number:06d}.tar", list(itertools.islice(waiting, size))
            path, signature = out / f"{_PARTIAL}{name}", signature_of(chosen)
            yield _Planned(name, split, path, chosen, signature, earlier.reuse(signature, path, name))


def _in_parts(
    planned: Iterable[_Planned], images: ImageStore, max_samples: int
) -> Iterator[tuple[list[_Planned], dict[bytes, Missing]]]:
    """The shards in their order, in parts whose images that have to be decoded once more fit together into the room
    for them, and these images. A shard alone is a part, even if its images do not fit."""
    part: list[_Planned] = []
    missing: dict[bytes, Missing] = {}
    num_samples = num_bytes = 0
    for shard in planned:
        more = {} if shard.reused else images.missing(shard.samples)
        num_more = sum(images_of_one.num_bytes for images_of_one in more.values())
        is_full = num_bytes + num_more > images.part_bytes or num_samples + len(shard.samples) > max_samples
        if part and (is_full or not missing):
            yield part, missing
            part, missing, num_samples, num_bytes = [], {}, 0, 0
        part.append(shard)
        missing |= more
        num_samples, num_bytes = num_samples + len(shard.samples), num_bytes + num_more
    if part:
        yield part, missing


def _write_all(
    planned: Iterable[_Planned],
    layout: Layout,
    images: ImageStore,
    reading: Reading,
    moving: _Moving,
) -> _Written:
    """Write all shards that are not reused, under temporary names, and hand them to `moving`."""
    written = _Written()
    max_samples = _MAX_SAMPLES_OF_LISTED if reading.is_listed else _MAX_SAMPLES_IN_PART
    for part, missing in _in_parts(planned, images, max_samples):
        if missing:
            moving.settle()
            digests = sorted(missing, key=lambda digest: missing[digest].position)
            positions = [missing[digest].position for digest in digests]
            with contextlib.closing(reading.again(positions, "ingest, once more")) as decoded:
                images.replace_again(decoded, digests)
            images.flush()
        for shard in part:
            noted = shard.reused
            if noted is None:
                noted = write_shard(shard.samples, layout, images, shard.path, shard.name)
                written.num_new += 1
                moving.take(shard, noted)
            written.notes.append(noted)
            about = noted.model_dump(exclude={"md5"})
            written.shards.append(Shard(**about, num_samples=len(shard.samples), split=shard.split))
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


class _Moving:
    """Moves shards into the store while others are written; at the end of the context all are there. Does nothing
    without a store."""

    def __init__(self, store: ShardStore | None, journal: StoreJournal | None) -> None:
        self._store, self._journal = store, journal
        self._threads = ThreadPoolExecutor(_NUM_MOVED_AT_ONCE)
        self._moving: deque[tuple[Future[bool], bytes, NotedShard]] = deque()
        self.num_new = 0
        """Shards that the store did not have already."""

    def __enter__(self) -> _Moving:
        return self

    def take(self, shard: _Planned, noted: NotedShard) -> None:
        """Move a shard that is complete."""
        if self._store is not None:
            self._wait(_NUM_MOVED_AT_ONCE - 1)  # so that few shards are on the disk at a time
            future = self._threads.submit(self._store.move_in, shard.path, noted.sha256)
            self._moving.append((future, shard.signature, noted))

    def settle(self) -> None:
        """Wait until the store has all shards that were handed over."""
        self._wait(0)

    def _wait(self, most: int) -> None:
        while self._moving and (len(self._moving) > most or self._moving[0][0].done()):
            future, signature, noted = self._moving.popleft()
            self.num_new += future.result()
            if self._journal is not None:
                self._journal.note_stored(signature, noted)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.settle()
        finally:
            self._threads.shutdown(cancel_futures=True)
            for future, signature, noted in self._moving:  # of an ingest that failed
                if self._journal is not None and not future.cancelled() and future.exception() is None:
                    self._journal.note_stored(signature, noted)


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
        history: where notes on earlier ingests are, also of one into `store` that was killed; None decodes everything.
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
    reading = Reading(settings, source, num_processes, map_tasks)
    reading.check_values()
    try:
        return _ingest(settings, reading, out, history, originals or Originals(), store)
    except OSError as error:
        place = error.filename if error.filename and not str(error.filename).startswith(str(out)) else out
        raise GanpipeError(f"{place}: ingest cannot write its shards: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise GanpipeError(
            f"ingest cannot sort its samples in the folder for temporary files ({error}); set TMPDIR to one with room"
        ) from error


def _ingest(
    settings: DataSettings,
    reading: Reading,
    out: Path,
    history: IngestHistory | None,
    originals: Originals,
    store: ShardStore | None,
) -> Manifest:
    """`write_shards` after its checks."""
    description = reading.description
    fields: Fields = description.specs(settings)
    layout = Layout.of(fields)
    key = f"{settings.source}-{conversion_key(settings, description)}"
    previous = find_previous(history if store is None else None, key, out, layout)
    label_position, num_raw_bytes = _label_position(description), sum(map(_num_bytes, fields.values()))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_partial_files(out))
        journal: StoreJournal | None = None
        if store is not None and history is not None:
            journal = stack.enter_context(contextlib.closing(StoreJournal(history.notes, key, layout, store)))
        max_bytes = None if store is None else cache_limit(out)[0]
        images = stack.enter_context(
            contextlib.closing(ImageStore(out, previous, label_position, num_raw_bytes, max_bytes))
        )
        samples = stack.enter_context(contextlib.closing(SampleIndex()))
        gathered = _gather(settings, reading, samples, images, journal or previous, originals)
        messages.report_skipped(gathered.skipped, out)
        messages.report_left_out(reading.left_out, out)
        messages.report_blank(gathered.blank)
        _require_training_images(settings, gathered)
        messages.report_classes(description.classes, samples, settings.limit)
        planned = _planned(samples, settings.samples_per_shard, journal or previous, out)
        with _Moving(store, journal) as moving:
            written = _write_all(planned, layout, images, reading, moving)
        if store is not None:
            print(f"data.store: {moving.num_new:,} of {len(written.shards):,} shards are new there")
        fields, names = _final_fields(fields, description, settings, samples)
        manifest = _manifest(settings, description, fields, names, written, gathered.skipped, reading.left_out)
        _publish(out, manifest)
        num_shards = len(manifest.shards)
        messages.report_changes(previous, samples, gathered.num_decoded, written.num_new, num_shards)
        if journal is not None:
            journal.finish(digest for digest, _ in samples.digests())
    if history is not None and store is None:
        write_note(history, key, written.notes)
    return manifest


def _num_bytes(spec: FieldSpec) -> int:
    """Of a picture's pixels; 0 for other kinds of fields."""
    return math.prod(spec.row_shape) if spec.is_picture else 0


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
