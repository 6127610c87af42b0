"""WebDataset shards that others wrote, local or at URLs; settings say which members are image, label and text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from ...documents import parse_json
from ...errors import GanpipeError
from ...section import nearest
from ..shards.left_out import Tally
from ..shards.manifest import LeftOut
from . import files
from .base import (
    Classes,
    Description,
    FileRange,
    ImageInMemory,
    ImageReference,
    Item,
    Items,
    MissingImage,
    Pictures,
    Source,
    SourceSettings,
    Texts,
)
from .foreign_classes import GivenClasses, class_name, class_number, classes_among
from .foreign_files import ForeignFile, change_marks, expand_patterns, is_gzipped
from .webdataset_samples import ForeignSample, MemberMapping, read_samples

_IMAGES = ("png", "jpg", "jpeg", "webp")
_MAX_LISTED = 8
_KEY = "sources.webdataset"


class _NoImage(GanpipeError):
    """A sample has no image; data.unreadable decides what happens."""


class WebdatasetSettings(SourceSettings):
    """WebDataset shards that exist already."""

    path: str | None = None
    """The folder of local shards. It is a dependency in dvc.yaml: if all shards are at URLs, name a folder that
    exists."""
    shards: tuple[str, ...] = Field(("*.tar",), min_length=1)
    """Which shards: names below `path`, or URLs (http, https; s3, gs, ... if fsspec's driver is installed). Braces
    stand for several names (train-{000000..000041}.tar); *, ? and ** work for local shards only. A shard may be
    gzipped."""
    image: str | None = None
    """Extension of the member that is the image. Null: the first of png, jpg, jpeg, webp that a sample has."""
    label: str | None = None
    """The member with the class: an extension (`cls`) whose text is the class's number or name, or `json:key` for the
    value under this key of a JSON member (`json:a.b`: the value under b in a). Null: no labels."""
    text: str | None = None
    """The member with the text, written in the same way (`txt`, `json:caption`). Null: no texts."""
    classes: GivenClasses = None
    """Names of the classes, or their number. Null: all labels of local shards are read to find the classes. It has to
    be set if shards at URLs have labels."""
    key_ends_at: Literal["first dot", "last dot"] = "first dot"
    """Where a member's name is divided into key and extension: at the first dot after its last slash, as in the
    webdataset library, or at the last dot (photo.v2.jpg)."""
    description: str = "Images from WebDataset shards."
    """One sentence for the model card."""
    licence: str = "unknown (WebDataset shards)"
    """Under which terms the images may be used; it is written into every registered model."""

    @field_validator("image", "label", "text")
    @classmethod
    def _members_are_extensions(cls, value: str | None) -> str | None:
        if value is not None and (value.startswith(".") or value != value.strip() or not value.partition(":")[0]):
            raise ValueError("expected an extension without its dot (cls), or one with a key (json:label)")
        return value


class Webdataset(Source):
    """Samples of shards that others wrote."""

    Settings = WebdatasetSettings

    def __init__(self, settings: SourceSettings) -> None:
        assert isinstance(settings, WebdatasetSettings)
        self._settings = settings
        self._names: tuple[str, ...] | None = None
        self._left_out = Tally()

    def _shards(self) -> list[ForeignFile]:
        """All shards; never empty."""
        given = self._settings.path
        if given is None and any("://" not in pattern for pattern in self._settings.shards):
            raise GanpipeError(f"{_KEY}.path: not set; it is the folder that holds your shards")
        root = Path(given or "").expanduser()
        if any("://" not in pattern for pattern in self._settings.shards) and not root.is_dir():
            kind = "is a file, not a folder" if root.exists() else "does not exist"
            raise GanpipeError(f"{_KEY}.path: {root} {kind}")
        return expand_patterns(self._settings.shards, root, "webdataset", "shards")

    def _mapping(self, reads_images: bool) -> MemberMapping:
        """Which members make a sample. Label and text are always read, the image only if `reads_images`."""
        given = self._settings
        return MemberMapping(
            images=(given.image.lower(),) if given.image else _IMAGES,
            texts=frozenset(name.partition(":")[0].lower() for name in (given.label, given.text) if name),
            reads_images=reads_images,
            last_dot=given.key_ends_at == "last dot",
        )

    def _samples(self, shard: ForeignFile, with_images: bool, left_out: Tally | None = None) -> Iterator[ForeignSample]:
        """The shard's samples with label and text read, and with the image read if `with_images`."""
        return read_samples(shard, self._mapping(with_images), left_out)

    def _image_extension(self, shard: ForeignFile, sample: ForeignSample) -> str:
        if self._settings.image is not None:
            return self._require_member(shard, sample, self._settings.image.lower(), "image")
        for extension in _IMAGES:
            if extension in sample.members:
                return extension
        raise _NoImage(
            f"{shard.name}: sample {sample.key} has no .{', .'.join(_IMAGES)} (it has {_list_members(sample)}); "
            f"set {_KEY}.image to the extension of the image{self._mapping(False).hint(sample)}"
        )

    def _require_member(self, shard: ForeignFile, sample: ForeignSample, extension: str, setting: str) -> str:
        if extension not in sample.members:
            raise (_NoImage if setting == "image" else GanpipeError)(
                f"{shard.name}: sample {sample.key} has no .{extension}, which {_KEY}.{setting} names (it has "
                f"{_list_members(sample)}); {nearest(extension, sample.members)}{self._mapping(False).hint(sample)}"
            )
        return extension

    def _value(self, shard: ForeignFile, sample: ForeignSample, setting: str) -> Any:
        """The text of the member that a setting names, or the value under a key of its JSON.

        Args:
            setting: `label` or `text`.
        """
        extension, _, key = getattr(self._settings, setting).partition(":")
        content = sample.contents[self._require_member(shard, sample, extension.lower(), setting)]
        where = f"{shard.name}: sample {sample.key}: .{extension}"
        try:
            text = content.decode("utf-8")
            if not key:
                return text
            value = parse_json(text)
        except ValueError as error:
            raise GanpipeError(f"{where}: {'not JSON' if key else 'not UTF-8 text'} ({error})") from None
        for part in [key] if isinstance(value, dict) and key in value else key.split("."):
            if not isinstance(value, dict) or part not in value:
                valid = nearest(part, value) if isinstance(value, dict) else f"{type(value).__name__} has no keys"
                raise GanpipeError(f"{where} has no key {part!r}; {valid}")
            value = value[part]
        return value

    def _class_name(self, shard: ForeignFile, sample: ForeignSample) -> str:
        """The sample's class as its member names it: a number or a name."""
        where = f"{shard.name}: sample {sample.key}"
        return class_name(self._value(shard, sample, "label"), where, str(self._settings.label))

    def _classes(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        given = self._settings.classes
        if self._settings.label is None:
            return ()
        if isinstance(given, int):
            return tuple(map(str, range(given)))
        if given is not None:
            return given
        if self._names is None:
            shards = self._shards()
            if remote := next((shard for shard in shards if shard.is_remote), None):
                raise GanpipeError(
                    f"{_KEY}.classes: not set; {remote.name} is not on this machine, so give the names of its classes, "
                    "or their number"
                )
            self._names = classes_among(
                (
                    (shard.name, self._class_name(shard, sample))
                    for shard in shards
                    for sample in read_samples(shard, self._mapping(False))
                ),
                f"{_KEY}.label",
            )
        return self._names

    def check(self) -> None:
        shards = self._shards()
        for shard in shards:
            if not shard.is_remote:  # the settings have to fit its first sample with an image
                self._require_images(shard)

    def _require_images(self, shard: ForeignFile) -> None:
        first: MissingImage | None = None
        for item in self._items_of(shard, self._classes()):
            image = item.images["image"]
            if not isinstance(image, MissingImage):
                return
            first = first or image
        if first is not None:
            raise GanpipeError(first.reason)

    def describe(self) -> Description:
        shards = self._shards()
        for shard in shards[:1]:
            if not shard.is_remote and next(read_samples(shard, self._mapping(False)), None) is None:
                raise GanpipeError(f"{shard.name}: holds no sample")
        return Description(
            fields={
                "image": Pictures(),
                **({"label": Classes(self._classes())} if self._settings.label else {}),
                **({"text": Texts()} if self._settings.text else {}),
            },
            text=self._settings.description,
            licence=self._settings.licence,
        )

    def _items_of(self, shard: ForeignFile, classes: tuple[str, ...], left_out: Tally | None = None) -> Iterator[Item]:
        in_place = not shard.is_remote and not is_gzipped(shard)
        numbers = {name: number for number, name in enumerate(classes)}
        path = Path(shard.url).absolute() if in_place else None
        root = Path(self._settings.path or "").expanduser()
        name = shard.name if shard.is_remote else os.path.relpath(shard.url, root)
        for sample in read_samples(shard, self._mapping(not in_place), left_out):
            image = self._image_reference(shard, sample, path)
            values = {"label": self._class_number(shard, sample, numbers)} if classes else {}
            yield Item(
                files.printable(f"{name}: {sample.key}"), {"image": image}, {**values, **self._texts(shard, sample)}
            )

    def _texts(self, shard: ForeignFile, sample: ForeignSample) -> dict[str, str]:
        if self._settings.text is None:
            return {}
        text = self._value(shard, sample, "text")
        if not isinstance(text, str):
            raise GanpipeError(f"{shard.name}: sample {sample.key}: {self._settings.text} is {text!r}; expected a text")
        return {"text": text}

    def _image_reference(self, shard: ForeignFile, sample: ForeignSample, path: Path | None) -> ImageReference:
        """The reference to the sample's image: in the local shard at `path`, or in memory if `path` is None."""
        try:
            extension = self._image_extension(shard, sample)
        except _NoImage as error:
            return MissingImage(str(error))
        return FileRange(path, *sample.members[extension]) if path else ImageInMemory(sample.contents[extension])

    def _class_number(self, shard: ForeignFile, sample: ForeignSample, numbers: dict[str, int]) -> int:
        where = f"{shard.name}: sample {sample.key}"
        return class_number(self._class_name(shard, sample), numbers, where, str(self._settings.label))

    def items(self) -> Iterable[Item]:
        shards, classes = self._shards(), self._classes()

        def make() -> Iterator[Item]:
            self._left_out = Tally()
            for shard in shards:
                yield from self._items_of(shard, classes, self._left_out)

        if any(shard.is_remote or is_gzipped(shard) for shard in shards):
            return make()  # such shards are read once, as a stream
        # Counting reads all samples, so that errors in them are found before any image is decoded.
        return Items(sum(1 for _ in make()), make)

    def left_out(self) -> tuple[LeftOut, ...]:
        return self._left_out.result()

    def fingerprint(self) -> str:
        with ThreadPoolExecutor(16) as threads:
            return files.digest_of(threads.map(change_marks, self._shards()))


def _list_members(sample: ForeignSample) -> str:
    found = [f".{extension}" for extension in sample.members]
    return ", ".join(found if len(found) <= _MAX_LISTED else [*found[:_MAX_LISTED], "..."])
