"""What an earlier ingest made on this machine: its shards, found and verified, so that no image is decoded again.

A note in a folder beside the outputs says which shards an ingest with these settings and this code made. They are
looked for where they were written, and in stores that keep files under their MD5, such as DVC's cache: DVC removes a
stage's outputs before it runs. A shard counts only if its size and SHA-256 are those of the note.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import os
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

_NUM_NOTES_KEPT = 20
ImageRange = tuple[int, int, int]
"""Number of a file, offset, size."""


@dataclass(frozen=True)
class IngestHistory:
    """Where ingest leaves notes, and stores that may hold what they name, as <two digits of the MD5>/<the others>."""

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
    """What one ingest made."""

    shards: tuple[NotedShard, ...]
    """All its shards, in order."""


@dataclass(frozen=True)
class Layout:
    """Which members a sample has in a shard.

    Attributes:
        members: in their order: suffix, whether it is a picture, and its number among a sample's pictures, or among its
            other values.
    """

    members: tuple[tuple[str, bool, int], ...]

    @classmethod
    def of(cls, fields: Fields) -> Layout:
        """Labels first, texts last."""
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
        """Of the pictures, or of the other values, in the order of the fields."""
        chosen = [(number, suffix) for suffix, is_picture, number in self.members if is_picture == pictures]
        return [suffix for _, suffix in sorted(chosen)]


class ShardSignature:
    """Stands for a shard's bytes, given that its images are the same: keys, labels and texts in their order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, key: str, values: tuple[bytes, ...]) -> None:
        """One more sample."""
        self._digest.update(repr((key, values)).encode())

    @property
    def value(self) -> bytes:
        return self._digest.digest()


@dataclass
class FoundShard:
    """A shard that is what the note says.

    Attributes:
        samples: digest of each, and where its images lie within the file.
    """

    path: Path
    noted: NotedShard
    signature: bytes
    samples: list[tuple[bytes, tuple[tuple[int, int], ...]]]


@dataclass
class PreviousIngest:
    """The shards of an earlier ingest that are still there.

    Attributes:
        places: where the images of a digest lie; a file's number is its position in `shards`.
        digests: how often each is there.
        by_signature: a shard of these keys, labels and texts has these bytes, since a key names its images.
        num_lost: shards that are gone or damaged; None where no ingest left a note.
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
            shard.samples = []


def _note_path(history: IngestHistory, key: str) -> Path:
    return history.notes / f"{key}.json"


def _read_note(history: IngestHistory, key: str) -> Note | None:
    """None where there is none that can be read: the images are decoded again then."""
    try:
        return Note.model_validate_json(_note_path(history, key).read_bytes())
    except (OSError, ValidationError):
        return None


def write_note(history: IngestHistory, key: str, shards: Sequence[NotedShard]) -> None:
    """Remember what was made; the oldest notes are forgotten."""
    history.notes.mkdir(parents=True, exist_ok=True)
    path = _note_path(history, key)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(Note(shards=tuple(shards)).model_dump(mode="json"), indent=1) + "\n")
    os.replace(partial, path)
    notes = sorted(history.notes.glob("*.json"), key=lambda note: note.stat().st_mtime_ns)
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
        except (OSError, GanpipeError):  # gone, or no such tar: the next candidate may be better
            continue
    return None


def _open_shard(path: Path, noted: NotedShard, layout: Layout) -> FoundShard | None:
    """The shard with its samples; None if its bytes are others."""
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
    """What the last ingest of this key made, as far as it is found and sound.

    Args:
        key: of source, settings and code.
        folder: where the shards were written.
    """
    note = _read_note(history, key) if history is not None else None
    if history is None or note is None:
        return PreviousIngest()
    with ThreadPoolExecutor(usable_cpus()) as threads:
        found = list(threads.map(lambda noted: _find_shard(noted, folder, history, layout), note.shards))
    shards = [shard for shard in found if shard is not None]
    return PreviousIngest(shards, len(found) - len(shards))
