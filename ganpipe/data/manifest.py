"""manifest.json: what is in a folder of shards, and whether the folder still holds it."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from ..cpus import usable_cpus
from ..documents import parse_json, read_bounded
from ..errors import GanpipeError
from ..section import Section, explain

MANIFEST = "manifest.json"
SHARD_PATTERN = r"^[a-z]+-[0-9]{6}\.tar$"  # no slash, no dots in front: a shard lies in its manifest's folder
FIELD_PATTERN = r"^[a-z][a-z0-9_]{0,49}$"  # names a file of the decoded cache
MAX_CLASSES = 100_000
_MAX_MANIFEST_BYTES = 2**25
_MIN_SAMPLE_BYTES = 1024  # a member's header and its content
_OTHER_SUFFIXES = {"label": "cls", "text": "txt"}
Split = Literal["train", "validation"]
Subset = Literal["train", "validation", "test"]
SUBSETS: dict[str, Subset] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""What the folder of a part of a dataset may be called, in lower case."""


def image_fields(fields: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a sample's fields that are images."""
    return tuple(name for name in fields if name not in _OTHER_SUFFIXES)


def member_suffix(field: str) -> str:
    """The ending of a field's members in a shard, without its first dot: cls, txt, png, source.png, ..."""
    return _OTHER_SUFFIXES.get(field) or ("png" if field == "image" else f"{field}.png")


class Shard(Section):
    """One tar file."""

    name: str = Field(pattern=SHARD_PATTERN)
    """File name, in the manifest's folder."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file."""
    num_bytes: int = Field(ge=1, le=2**50)
    """Size of the file."""
    num_samples: int = Field(ge=1)
    """Samples in it."""
    split: Split
    """The split that all its samples belong to."""

    @model_validator(mode="after")
    def _samples_have_room(self) -> Shard:
        if self.num_samples * _MIN_SAMPLE_BYTES > self.num_bytes:
            raise ValueError(f"{self.num_samples} samples do not fit into {self.num_bytes} bytes")
        return self


class LeftOut(Section):
    """What a source has and did not give, of one kind."""

    kind: str
    """An extension (`.heic`), or words."""
    number: int = Field(ge=1)
    """How many."""
    names: tuple[str, ...] = ()
    """The first ones."""


class Manifest(Section):
    """What ingest wrote. Holds no clock, host name or path."""

    format_version: Literal[1] = 1
    """Raised when the shards' layout changes."""
    source: str
    """Name of the source."""
    description: str
    """What the images are."""
    homepage: str = ""
    """Where the source is described."""
    licence: str
    """Under which terms the images may be used."""
    image_size: int = Field(ge=1, le=4096)
    """Height and width in pixels."""
    channels: Literal[1, 3]
    """1 for grey, 3 for RGB."""
    fields: tuple[Annotated[str, Field(pattern=FIELD_PATTERN)], ...] = Field(min_length=1, max_length=50)
    """What every sample has: `label` is a class number (.cls), `text` is UTF-8 (.txt), every other field an image
    (`image`: .png)."""
    classes: tuple[str, ...] = Field((), max_length=MAX_CLASSES)
    """Names of the classes, by number."""
    shards: tuple[Shard, ...] = Field(min_length=1)
    """In the order in which their samples are numbered."""
    skipped: tuple[str, ...] = ()
    """Names of the images that could not be decoded and were left out."""
    left_out: tuple[LeftOut, ...] = ()
    """What the source has beside its images, by kind. Says nothing about the dataset, and is no part of its digest."""

    @model_validator(mode="after")
    def _names_differ(self) -> Manifest:
        if len({shard.name for shard in self.shards}) != len(self.shards):
            raise ValueError("a shard is listed twice")
        if len(set(self.fields)) != len(self.fields):
            raise ValueError("a field is listed twice")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest as canonical JSON: names the dataset, since it covers every shard's digest."""
        values = self.model_dump(mode="json", exclude={"left_out"})
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_fields(self) -> tuple[str, ...]:
        return image_fields(self.fields)

    @property
    def array_fields(self) -> tuple[str, ...]:
        """The fields that the decoded cache holds, and so a batch: all but texts."""
        return tuple(name for name in self.fields if name != "text")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have samples, `train` first."""
        return tuple(sorted({shard.split for shard in self.shards}))

    def shards_of(self, split: str) -> tuple[Shard, ...]:
        return tuple(shard for shard in self.shards if shard.split == split)

    def num_samples(self, split: str) -> int:
        return sum(shard.num_samples for shard in self.shards_of(split))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json atomically: it is either whole or not there."""
    partial = folder / f".{MANIFEST}.partial"
    values = manifest.model_dump(mode="json", exclude=None if manifest.left_out else {"left_out"})
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(values, indent=2, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Read `folder`/manifest.json.

    Raises:
        GanpipeError: it is missing, or no manifest of this version.
    """
    path = folder / MANIFEST
    try:
        values = parse_json(read_bounded(path, _MAX_MANIFEST_BYTES))
    except FileNotFoundError:
        raise GanpipeError(f"{path}: no such file; `ganpipe ingest` writes it when its shards are complete") from None
    except ValueError as error:
        raise GanpipeError(f"{path}: cannot be read ({error}); run `ganpipe ingest` again") from None
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        reason = explain(error, Manifest).replace("\n", "; ")
        raise GanpipeError(f"{path}: not a manifest of this version: {reason}; run `ganpipe ingest` again") from None


def verify_shard(folder: Path, shard: Shard) -> Path:
    """The shard's path, once its size and SHA-256 are those of the manifest.

    Raises:
        GanpipeError: naming the shard, and how it differs.
    """
    path = folder / shard.name
    remedy = "fetch it again (`dvc pull`) or run `ganpipe ingest` again"
    try:
        num_bytes = path.stat().st_size
        if num_bytes != shard.num_bytes:
            change = "cut short" if num_bytes < shard.num_bytes else "too long"
            raise GanpipeError(f"{path}: {change}: {num_bytes} bytes, the manifest says {shard.num_bytes}; {remedy}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise GanpipeError(f"{path}: missing, but the manifest lists it; {remedy}") from None
    except OSError as error:
        raise GanpipeError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    if found != shard.sha256:
        raise GanpipeError(
            f"{path}: damaged: its SHA-256 is {found[:12]}..., the manifest says {shard.sha256[:12]}...; {remedy}"
        )
    return path


def verify(folder: Path) -> Manifest:
    """The folder's manifest, once every shard has the size and SHA-256 that it says.

    Raises:
        GanpipeError: naming the first shard that differs.
    """
    manifest = read_manifest(folder)
    with ThreadPoolExecutor(usable_cpus()) as threads:
        list(threads.map(lambda shard: verify_shard(folder, shard), manifest.shards))
    return manifest
