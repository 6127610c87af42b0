"""manifest.json: what a folder of shards holds, and checks that the folder still holds it."""

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
from ...fields import NAME_PATTERN, FieldSpec, Frames, Label, Picture, Tokens, fields_of_format_1, main_label
from ...section import Section, explain

MANIFEST = "manifest.json"
SHARD_PATTERN = r"^[a-z]+-[0-9]{6}\.tar$"  # no slash and no dot at its start: a shard lies in its manifest's folder
_MAX_MANIFEST_BYTES = 2**25
_MIN_SAMPLE_BYTES = 1024  # one block for a member's header and one for its content
Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
Subset = Literal["train", "validation", "test"]
SUBSETS: dict[str, Subset] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Usual names, in lower case, of the folders of a dataset's parts -> the part."""


class Shard(Section):
    """One tar file."""

    name: str = Field(pattern=SHARD_PATTERN)
    """File name, in the manifest's folder."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file."""
    num_bytes: int = Field(ge=1, le=2**50)
    """Size of the file."""
    num_samples: int = Field(ge=1)
    """Number of samples in it."""
    split: Split
    """The split of all its samples."""

    @model_validator(mode="after")
    def _samples_have_room(self) -> Shard:
        if self.num_samples * _MIN_SAMPLE_BYTES > self.num_bytes:
            raise ValueError(f"{self.num_samples} samples do not fit into {self.num_bytes} bytes")
        return self


class LeftOut(Section):
    """Files of one kind that a source left out."""

    kind: str
    """An extension (`.heic`) or a description (`broken link`)."""
    number: int = Field(ge=1)
    """Number of such files."""
    names: tuple[str, ...] = ()
    """Names of the first ones."""


class Manifest(Section):
    """A dataset that ingest wrote. It holds no time, host name or path, so equal inputs give equal manifests."""

    format_version: Literal[1, 2] = 2
    """Increased when the layout changes. Format 1 had untyped fields, and one size for all images."""
    source: str
    """Name of the source."""
    description: str
    """One sentence on what the images are."""
    homepage: str = ""
    """URL of a page about the source."""
    licence: str
    """Under which terms the images may be used."""
    fields: dict[Annotated[str, Field(pattern=NAME_PATTERN)], FieldSpec] = Field(min_length=1, max_length=50)
    """The fields of every sample, by name."""
    main: str
    """The name of the field with the images that generators make unless their GAN chooses another field."""
    names: dict[str, tuple[str, ...]] = Field({})
    """For each field with labels the names of its classes, for each field with texts the words of its vocabulary, by
    number."""
    shards: tuple[Shard, ...] = Field(min_length=1)
    """All shards, in the order in which their samples are numbered."""
    skipped: tuple[str, ...] = ()
    """Names of the images that could not be decoded and were left out."""
    left_out: tuple[LeftOut, ...] = ()
    """Files that the source left out, by kind. They are not part of the dataset, and so not part of its digest."""

    @model_validator(mode="before")
    @classmethod
    def _of_format_1(cls, values: Any) -> Any:
        """Converts a manifest of format 1 to the fields of format 2."""
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
        if not isinstance(self.fields.get(self.main), Picture | Frames):
            raise ValueError(f"main is {self.main!r}; expected one of the fields that are images or frames")
        for name, names in self.names.items():
            spec = self.fields.get(name)
            if spec is None or (isinstance(spec, Label) and len(names) != spec.num_classes):
                raise ValueError(f"names.{name}: {len(names)} names, which do not fit a field")
        return self

    def to_json(self) -> dict[str, Any]:
        """The content of manifest.json, in the format in which the manifest was read."""
        values = self.model_dump(mode="json", exclude=None if self.left_out else {"left_out"})
        if self.format_version == 1:
            image = self.image
            values |= {"image_size": image.size, "channels": image.channels, "fields": list(self.fields)}
            values |= {"classes": list(self.classes)}
            values = {key: value for key, value in values.items() if key not in ("main", "names")}
        return values

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest as canonical JSON, 64 hex digits. It identifies the dataset, because it covers the
        digest of every shard."""
        values = {key: value for key, value in self.to_json().items() if key != "left_out"}
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def image(self) -> Picture | Frames:
        """Size and channels of the images (or frames) in the main field."""
        spec = self.fields[self.main]
        assert isinstance(spec, Picture | Frames)
        return spec

    @property
    def label(self) -> str | None:
        """The name of the main field with labels, see `main_label`; None if there are no labels."""
        return main_label(name for name, spec in self.fields.items() if isinstance(spec, Label))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the main field with labels, by number; empty if there are no labels."""
        return self.names.get(self.label, ()) if self.label is not None else ()

    @property
    def array_fields(self) -> dict[str, FieldSpec]:
        """The fields that the decoded cache and batches hold: all but texts without a vocabulary."""
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
    """The values with the fields sorted by name, the order in which they are read from a file."""
    if isinstance(values, Mapping) and isinstance(values.get("fields"), Mapping):
        return {**values, "fields": {name: values["fields"][name] for name in sorted(values["fields"], key=str)}}
    return values


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json atomically: either it is complete or it does not exist."""
    partial = folder / f".{MANIFEST}.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(manifest.to_json(), indent=2, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Read `folder`/manifest.json.

    Raises:
        GanpipeError: it is missing, or is not a manifest of a known format.
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


def verify_shard(folder: Path, shard: Shard, contents: bool = True) -> Path:
    """The path of a shard, after its size and SHA-256 were compared with the manifest.

    Args:
        folder: where the shard lies.
        contents: else the size alone is compared.

    Raises:
        GanpipeError: the shard is missing or differs; says how.
    """
    path = folder / shard.name
    remedy = "fetch it again (`dvc pull`) or run `ganpipe ingest` again"
    try:
        num_bytes = path.stat().st_size
        if num_bytes != shard.num_bytes:
            change = "cut short" if num_bytes < shard.num_bytes else "too long"
            raise GanpipeError(f"{path}: {change}: {num_bytes} bytes, the manifest says {shard.num_bytes}; {remedy}")
        if not contents:
            return path
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


def verify(folder: Path, contents: bool = True) -> Manifest:
    """The folder's manifest, after the size and SHA-256 of every shard were compared with it.

    Args:
        contents: else the sizes alone are compared.

    Raises:
        GanpipeError: a shard is missing or differs; names the first one.
    """
    manifest = read_manifest(folder)
    with ThreadPoolExecutor(usable_cpus()) as threads:
        list(threads.map(lambda shard: verify_shard(folder, shard, contents), manifest.shards))
    return manifest
