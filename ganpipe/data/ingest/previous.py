"""The shards that an earlier ingest made on this machine, found and verified, so that no image is decoded again.

A note in a folder beside the outputs lists the shards that an ingest with the same settings and code made. They are
looked for where they were written and, because DVC removes a stage's outputs before it runs the stage, in stores that
keep files under their MD5, such as DVC's cache. A shard is used only if its size and SHA-256 are those of the note.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import mmap
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, ValidationError

from ...cpus import usable_cpus
from ...errors import GanpipeError
from ...fields import Fields
from ...section import Section
from ..shards.manifest import SHARD_PATTERN
from ..shards.tar import find_members
from .conversion import KnownDigests, known_digests

_NUM_NOTES_KEPT = 20
ImageRange = tuple[int, int, int]
"""Where an image lies: (number of a file, offset in bytes, size in bytes)."""


@dataclass(frozen=True)
class IngestHistory:
    """Where notes on earlier ingests and their shards are found.

    Attributes:
        notes: the folder of the notes.
        stores: folders that may hold the shards, as `<first two digits of the MD5>/<other digits>`.
    """

    notes: Path
    stores: tuple[Path, ...] = ()


class NotedShard(Section):
    """One shard of an earlier ingest."""

    name: str = Field(pattern=SHARD_PATTERN)
    """File name in the folder of shards."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file."""
    md5: str = Field(pattern=r"^[0-9a-f]{32}$")
    """MD5 of the file: its name in a store."""
    num_bytes: int = Field(ge=1)
    """Size of the file."""


class Note(Section):
    """The shards that one ingest made."""

    shards: tuple[NotedShard, ...]
    """All its shards, in order."""


@dataclass(frozen=True)
class Layout:
    """Which files a sample has in a shard.

    Attributes:
        members: for each file, in their order: extension, whether it is a picture, and its position among the sample's
            pictures or among its other values.
    """

    members: tuple[tuple[str, bool, int], ...]

    @classmethod
    def of(cls, fields: Fields) -> Layout:
        """The layout of samples with these fields: labels first, then pictures, then texts."""
        numbers = {True: itertools.count(), False: itertools.count()}
        found = [
            (spec.rank, spec.member(name), spec.is_picture, next(numbers[spec.is_picture]))
            for name, spec in fields.items()
        ]
        return cls(
            tuple(
                (suffix, is_picture, number) for _, suffix, is_picture, number in sorted(found, key=lambda one: one[0])
            )
        )

    def suffixes(self, pictures: bool) -> list[str]:
        """The extensions of the pictures, or of the other values, in the order of the fields."""
        chosen = [(number, suffix) for suffix, is_picture, number in self.members if is_picture == pictures]
        return [suffix for _, suffix in sorted(chosen)]


class ShardSignature:
    """A digest of a shard's keys, labels and texts. Shards with equal signatures have equal bytes, because a key
    identifies its images."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, key: str, values: tuple[bytes, ...]) -> None:
        """Add the next sample of the shard."""
        self._digest.update(repr((key, values)).encode())

    @property
    def value(self) -> bytes:
        return self._digest.digest()


@dataclass
class FoundShard:
    """A shard of an earlier ingest that was found and verified.

    Attributes:
        noted: what the note says about it.
        signature: the value of its `ShardSignature`.
        samples: for each sample its digest, and (offset, size) of each of its images within the file.
    """

    path: Path
    noted: NotedShard
    signature: bytes
    samples: list[tuple[bytes, tuple[tuple[int, int], ...]]]


@dataclass
class PreviousIngest:
    """The shards of the previous ingest that still exist.

    Attributes:
        num_lost: how many of its shards are gone or damaged; None if there is no note on a previous ingest.
        image_ranges: digest -> where the images of the sample lie; a file's number is its position in `shards`.
        digests: how many samples have each digest.
        by_signature: the shard with each signature.
    """

    shards: list[FoundShard] = field(default_factory=list)
    num_lost: int | None = None
    image_ranges: dict[bytes, tuple[ImageRange, ...]] = field(default_factory=dict)
    digests: Counter[bytes] = field(default_factory=Counter)
    by_signature: dict[bytes, FoundShard] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, shard in enumerate(self.shards):
            self.by_signature[shard.signature] = shard
            for digest, images in shard.samples:
                self.image_ranges[digest] = tuple((number, offset, size) for offset, size in images)
                self.digests[digest] += 1
            shard.samples = []  # frees memory: `image_ranges` holds the same

    @functools.cached_property
    def known_digests(self) -> KnownDigests:
        """The digests of all samples, which need not be decoded again."""
        return known_digests(self.image_ranges)

    def reuse(self, signature: bytes, path: Path, name: str) -> NotedShard | None:
        """Put the shard with this signature at `path`, if there is such a shard: as a hard link if it lies in the same
        folder, else as a copy.

        Args:
            name: the shard's new name.

        Returns:
            The note on the shard; None if there is no such shard.
        """
        if (shard := self.by_signature.get(signature)) is None:
            return None
        if shard.path.parent == path.parent:
            with contextlib.suppress(OSError):  # a file system without hard links
                os.link(shard.path, path)
        if not path.exists():
            shutil.copyfile(shard.path, path)
        return shard.noted.model_copy(update={"name": name})


def _note_path(history: IngestHistory, key: str) -> Path:
    return history.notes / f"{key}.json"


def _read_note(history: IngestHistory, key: str) -> Note | None:
    """The note; None if there is none that can be read, and then all images are decoded again."""
    try:
        return Note.model_validate_json(_note_path(history, key).read_bytes())
    except (OSError, ValidationError):
        return None


def write_note(history: IngestHistory, key: str, shards: Sequence[NotedShard]) -> None:
    """Write a note on the shards that an ingest made, and remove the oldest notes.

    Args:
        key: of source, settings and code.
    """
    history.notes.mkdir(parents=True, exist_ok=True)
    path = _note_path(history, key)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(Note(shards=tuple(shards)).model_dump(mode="json"), indent=1) + "\n")
    os.replace(partial, path)
    keep_newest(history.notes, "*.json")


def keep_newest(folder: Path, pattern: str) -> None:
    """Remove all but the newest notes whose names match the pattern."""
    notes = sorted(folder.glob(pattern), key=lambda note: note.stat().st_mtime_ns)
    for old in notes[:-_NUM_NOTES_KEPT]:
        old.unlink(missing_ok=True)


def _candidate_paths(noted: NotedShard, folder: Path, history: IngestHistory) -> Iterator[Path]:
    yield folder / noted.name
    for store in history.stores:
        yield store / noted.md5[:2] / noted.md5[2:]


def _find_shard(noted: NotedShard, folder: Path, history: IngestHistory, layout: Layout) -> FoundShard | None:
    for path in _candidate_paths(noted, folder, history):
        try:
            if path.stat().st_size == noted.num_bytes and (found := _open_shard(path, noted, layout)):
                return found
        except (OSError, GanpipeError):  # gone, or not a tar of ganpipe's: the next candidate may be intact
            continue
    return None


def _open_shard(path: Path, noted: NotedShard, layout: Layout) -> FoundShard | None:
    """The shard with its samples; None if its content is not that of the note."""
    pictures, others = layout.suffixes(pictures=True), layout.suffixes(pictures=False)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if hashlib.sha256(content).hexdigest() != noted.sha256:
            return None
        grouped: dict[str, dict[str, tuple[int, int]]] = {}
        for name, start, stop in find_members(path, content):
            key, _, suffix = name.partition(".")
            grouped.setdefault(key, {})[suffix] = (start, stop - start)
        signature, samples = ShardSignature(), []
        for key, members in grouped.items():
            if set(members) != {*pictures, *others}:
                return None
            signature.add(key, tuple(content[members[suffix][0] : sum(members[suffix])] for suffix in others))
            samples.append((bytes.fromhex(key.partition("_")[0]), tuple(members[suffix] for suffix in pictures)))
    return FoundShard(path, noted, signature.value, samples)


def find_previous(history: IngestHistory | None, key: str, folder: Path, layout: Layout) -> PreviousIngest:
    """The shards of the last ingest with this key that still exist and are intact.

    Args:
        history: where notes and shards are looked for; None finds nothing.
        key: of source, settings and code.
        folder: where the shards were written.
        layout: which files a sample has.
    """
    note = _read_note(history, key) if history is not None else None
    if history is None or note is None:
        return PreviousIngest()
    with ThreadPoolExecutor(usable_cpus()) as threads:
        found = list(threads.map(lambda noted: _find_shard(noted, folder, history, layout), note.shards))
    shards = [shard for shard in found if shard is not None]
    return PreviousIngest(shards, len(found) - len(shards))
