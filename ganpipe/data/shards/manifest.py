"""manifest.json: what is in a folder of shards, and whether the folder still holds it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ...cpus import usable_cpus
from ...documents import parse_json, read_bounded
from ...errors import GanpipeError
from ...fields import NAME_PATTERN, FieldSpec, Label, Picture, Tokens, fields_of_format_1, main_label
from ...section import Section, explain

MANIFEST = "manifest.json"
SHARD_PATTERN = r"^[a-z]+-[0-9]{6}\.tar$"  # no slash, no dots in front: a shard lies in its manifest's folder
_MAX_MANIFEST_BYTES = 2**25
_MIN_SAMPLE_BYTES = 1024  # a member's header and its content
Split = Literal["train", "validation"]
Subset = Literal["train", "validation", "test"]
SUBSETS: dict[str, Subset] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""What the folder of a part of a dataset may be called, in lower case."""


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

    format_version: Literal[1, 2] = 2
    """Raised when the layout changes. 1 had names of fields, and one size for all images."""
    source: str
    """Name of the source."""
    description: str
    """What the images are."""
    homepage: str = ""
    """Where the source is described."""
    licence: str
    """Under which terms the images may be used."""
    fields: dict[Annotated[str, Field(pattern=NAME_PATTERN)], FieldSpec] = Field(min_length=1, max_length=50)
    """What every sample has, by name."""
    main: str
    """The field with the images that generators make unless they say otherwise."""
    names: dict[str, tuple[str, ...]] = Field({})
    """Of a field with labels the classes' names, of one with texts the words, by number."""
    shards: tuple[Shard, ...] = Field(min_length=1)
    """In the order in which their samples are numbered."""
    skipped: tuple[str, ...] = ()
    """Names of the images that could not be decoded and were left out."""
    left_out: tuple[LeftOut, ...] = ()
    """What the source has beside its images, by kind. Says nothing about the dataset, and is no part of its digest."""

    @model_validator(mode="before")
    @classmethod
    def _of_format_1(cls, values: Any) -> Any:
        """A manifest of format 1 as this one's fields say it."""
        if not (isinstance(values, Mapping) and values.get("format_version") == 1 and "main" not in values):
            return _in_order(values)
        kept = dict(values)
        try:
            classes = tuple(kept.pop("classes", ()))
            names = tuple(kept.pop("fields"))
            fields = fields_of_format_1(kept.pop("image_size"), kept.pop("channels"), names, len(classes))
            if len(fields) != len(names):
                raise ValueError("a field is listed twice")
            main = next(name for name, spec in fields.items() if spec["kind"] == "image")
        except (KeyError, TypeError, StopIteration) as error:
            raise ValueError(f"a manifest of format 1 without its fields ({error!r})") from None
        return {**kept, "fields": fields, "main": main, "names": {"label": classes} if classes else {}}

    @model_validator(mode="after")
    def _is_consistent(self) -> Manifest:
        if len({shard.name for shard in self.shards}) != len(self.shards):
            raise ValueError("a shard is listed twice")
        if not isinstance(self.fields.get(self.main), Picture):
            raise ValueError(f"main is {self.main!r}; expected one of the fields that are images")
        for name, names in self.names.items():
            spec = self.fields.get(name)
            if spec is None or (isinstance(spec, Label) and len(names) != spec.num_classes):
                raise ValueError(f"names.{name}: {len(names)} names, which do not fit a field")
        return self

    def to_json(self) -> dict[str, Any]:
        """As in manifest.json, in the format that it was read in."""
        values = self.model_dump(mode="json", exclude=None if self.left_out else {"left_out"})
        if self.format_version == 1:
            image = self.image
            values |= {"image_size": image.size, "channels": image.channels, "fields": list(self.fields)}
            values |= {"classes": list(self.classes)}
            values = {key: value for key, value in values.items() if key not in ("main", "names")}
        return values

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest as canonical JSON: names the dataset, since it covers every shard's digest."""
        values = {key: value for key, value in self.to_json().items() if key != "left_out"}
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def image(self) -> Picture:
        """What the main field holds."""
        spec = self.fields[self.main]
        assert isinstance(spec, Picture)
        return spec

    @property
    def label(self) -> str | None:
        """The field with the classes that ingest counts and that metrics of each class are about; None without labels.

        Of several fields with labels, `label`, else the first by name.
        """
        return main_label(name for name, spec in self.fields.items() if isinstance(spec, Label))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of that field's classes, by number; empty without labels."""
        return self.names.get(self.label, ()) if self.label is not None else ()

    @property
    def array_fields(self) -> dict[str, FieldSpec]:
        """The fields that the decoded cache holds, and so a batch: all but texts without a vocabulary."""
        return {name: spec for name, spec in self.fields.items() if not isinstance(spec, Tokens) or spec.length}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have samples, `train` first."""
        return tuple(sorted({shard.split for shard in self.shards}))

    def shards_of(self, split: str) -> tuple[Shard, ...]:
        return tuple(shard for shard in self.shards if shard.split == split)

    def num_samples(self, split: str) -> int:
        return sum(shard.num_samples for shard in self.shards_of(split))


def _in_order(values: Any) -> Any:
    """The fields by name, as they come back from a file."""
    if isinstance(values, Mapping) and isinstance(values.get("fields"), Mapping):
        return {**values, "fields": {name: values["fields"][name] for name in sorted(values["fields"], key=str)}}
    return values


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json atomically: it is either whole or not there."""
    partial = folder / f".{MANIFEST}.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(manifest.to_json(), indent=2, sort_keys=True) + "\n")
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
