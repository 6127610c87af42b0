"""Images in a folder in the layout of Hugging Face's ImageFolder: metadata.csv or .jsonl, class and split folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ...errors import GanpipeError
from ..shards.left_out import OTHER_SUBSET, UNNAMED, Tally, summary_lines
from ..shards.manifest import SUBSETS, LeftOut, Split, Subset
from . import files, imagefolder_metadata
from .base import Classes, Description, EncodedFile, Item, Items, Pictures, Source, SourceSettings, Texts

Parts = tuple[str, ...]
_KEY = "sources.imagefolder"
_PARQUET = ".parquet"


class ImagefolderSettings(SourceSettings):
    """A folder of images with a table about them, as Hugging Face's ImageFolder reads it."""

    path: str | None = None
    """The folder. A metadata.csv or metadata.jsonl in it (or in its subfolders, each for the files below it) names
    images in its column `file_name`; images that no table names are left out. Without a table all images are taken."""
    labels: Literal["auto", "column", "subfolders", "none"] = "auto"
    """`column`: the class stands in a column of the table. `subfolders`: the subfolders are the classes. `none`: no
    labels. `auto`: with a table its column `label_column`, if it has one; without a table the subfolders, if any."""
    label_column: str = "label"
    """The table's column with the class, a name or a whole number."""
    text_column: str | None = None
    """The table's column with the image's text (a caption). Null: no texts."""
    subsets: tuple[Subset, ...] = Field(("train", "validation"), min_length=1)
    """Which subsets to take if the subfolders are train/, validation/ and test/ (or dev/, val/, eval/, ...)."""
    splits: Literal["mix", "keep"] = "mix"
    """`mix`: data.validation_fraction decides which images are kept for validation. `keep`: the folders decide: images
    in train/ are for training, those of the other subsets in `subsets` are for validation."""
    description: str = "Images from a local folder."
    """One sentence for the model card."""
    licence: str = "unknown (local images)"
    """Under which terms the images may be used; it is written into every registered model."""


@dataclass(frozen=True)
class _Image:
    """An image that was found.

    Attributes:
        parts: its path below the folder.
        row: the row of a table that names it; None without a table.
    """

    parts: Parts
    row: imagefolder_metadata.Row | None


class Imagefolder(Source):
    """Images in a folder, labels and texts from its tables."""

    Settings = ImagefolderSettings

    def __init__(self, settings: SourceSettings) -> None:
        assert isinstance(settings, ImagefolderSettings)
        self._settings = settings
        self._found: list[_Image] | None = None
        self._left_out = Tally()
        self._subset_of: dict[str, Subset] = {}

    def _root(self) -> Path:
        if self._settings.path is None:
            raise GanpipeError(f"{_KEY}.path: not set; it is the folder that holds your images")
        root = Path(self._settings.path).expanduser()
        if not root.is_dir():
            kind = "is a file, not a folder" if root.exists() else "does not exist"
            raise GanpipeError(f"{_KEY}.path: {root} {kind}")
        return root

    def _list(self, left_out: Tally | None = None) -> list[Parts]:
        """The paths of tables, and of files that may be images."""
        try:
            return list(
                files.walk(self._root(), lambda name: _is_named_like_table(name) or files.may_be_image(name), left_out)
            )
        except OSError as error:
            raise GanpipeError(f"{_KEY}.path: {error.filename} cannot be listed ({error.strerror})") from None

    def _images(self) -> list[_Image]:
        """All images of the subsets in `subsets`, sorted by their paths; never empty."""
        if self._found is None:
            self._left_out = Tally()
            listed = self._list(self._left_out)
            others = (parts for parts in listed if not _is_named_like_table(parts[-1]))
            images = list(files.images_among(self._root(), others, self._left_out))
            tops = {parts[0] for parts in images if len(parts) > 1}
            if tops and all(name.lower() in SUBSETS for name in tops):
                self._subset_of = {name: SUBSETS[name.lower()] for name in tops}
            elif self._settings.splits == "keep":
                raise GanpipeError(
                    f"{_KEY}.splits: keep, but {self._root()} is not made of folders train, validation, test "
                    f"({', '.join(map(files.printable, sorted(tops))) or 'it has no subfolder with images'})"
                )
            tables = [parts for parts in listed if parts[-1] in imagefolder_metadata.NAMES and self._is_taken(parts)]
            self._refuse_parquet([parts for parts in listed if parts[-1] == f"metadata{_PARQUET}"], tables)
            if tables:
                found = self._images_in_tables(tables, set(images))
            else:
                found = [_Image(parts, None) for parts in images if self._is_taken(parts)]
            self._count_left_out(images, {image.parts for image in found})
            self._found = sorted(found, key=lambda image: [os.fsencode(part) for part in image.parts])
        if not self._found:
            found_else = "; ".join(summary_lines(self._left_out.result()))
            raise GanpipeError(
                f"{_KEY}.path: {self._root()} holds no image in {', '.join(self._settings.subsets)}"
                f"{f', but {found_else}' if found_else else ''}"
            )
        return self._found

    def _count_left_out(self, images: list[Parts], taken: set[Parts]) -> None:
        for parts in images:
            if parts not in taken:
                kind = UNNAMED if self._is_taken(parts) else OTHER_SUBSET
                self._left_out.add(kind, files.display_path(parts))

    def _refuse_parquet(self, found: list[Parts], tables: list[Parts]) -> None:
        """Raise GanpipeError for a Parquet table: it is not read, and its images would be taken without their rows."""
        folders = {parts[:-1] for parts in tables}
        for parts in found:
            if self._is_table_taken(parts) and parts[:-1] not in folders:
                table = self._root().joinpath(*parts)
                raise GanpipeError(f"{table}: not read here; write it as metadata.csv or .jsonl")

    def _is_table_taken(self, parts: Parts) -> bool:
        return parts[0] not in self._subset_of or self._subset_of[parts[0]] in self._settings.subsets

    def _is_taken(self, parts: Parts) -> bool:
        """Whether a file lies in one of the subsets in `subsets`, or there are no subsets."""
        if parts[0] in self._subset_of:
            return self._subset_of[parts[0]] in self._settings.subsets
        if self._subset_of and parts[-1] not in imagefolder_metadata.NAMES:
            raise GanpipeError(
                f"{_KEY}: {files.printable('/'.join(parts))} lies beside the folders "
                f"{', '.join(sorted(self._subset_of))}; move it into one"
            )
        return True

    def _images_in_tables(self, tables: list[Parts], images: set[Parts]) -> list[_Image]:
        """The images that the tables name, each once."""
        root = self._root()
        folders = [parts[:-1] for parts in tables]
        for folder in folders:
            if folders.count(folder) > 1:
                raise GanpipeError(f"{root.joinpath(*folder)}: holds both metadata.csv and metadata.jsonl; remove one")
        rows: dict[Parts, imagefolder_metadata.Row] = {}
        for table in tables:
            for row in imagefolder_metadata.read_rows(root.joinpath(*table)):
                parts = (*table[:-1], *row.parts)
                named = f"{row.where}: file_name {row.values[imagefolder_metadata.FILE_NAME]!r}"
                if parts in rows:
                    raise GanpipeError(f"{named}: {rows[parts].where} names it, too")
                if parts not in images and not root.joinpath(*parts).is_file():
                    raise GanpipeError(f"{named}: there is no such file")
                if parts[-1].lower().endswith(_PARQUET):
                    raise GanpipeError(f"{named}: is no image; images within Parquet files are not read here")
                rows[parts] = row
        return [_Image(parts, row) for parts, row in rows.items() if self._is_taken(parts)]

    def _class_names(self) -> list[str] | None:
        """The name of each image's class; None without labels."""
        images, mode, column = self._images(), self._settings.labels, self._settings.label_column
        if mode == "auto":
            has_rows = images[0].row is not None
            if has_rows:
                mode = "column" if any(image.row and column in image.row.values for image in images) else "none"
            else:
                mode = "subfolders" if any(len(self._parts_below_subset(image)) > 1 for image in images) else "none"
        if mode == "none":
            return None
        if mode == "column":
            return [_class_name(self._row(image, "labels: column"), column) for image in images]
        for image in images:
            if len(self._parts_below_subset(image)) < 2:
                raise GanpipeError(
                    f"{_KEY}: {files.printable('/'.join(image.parts))} lies in no class folder; move it into one, or "
                    f"set {_KEY}.labels to none"
                )
        return [files.printable(self._parts_below_subset(image)[0]) for image in images]

    def _parts_below_subset(self, image: _Image) -> Parts:
        """The image's path below the folder of its subset, or below the folder if there are no subsets."""
        return image.parts[1:] if image.parts[0] in self._subset_of else image.parts

    def _row(self, image: _Image, wish: str) -> imagefolder_metadata.Row:
        if image.row is None:
            raise GanpipeError(f"{_KEY}.{wish} needs a table, but {self._root()} has no metadata.csv or metadata.jsonl")
        return image.row

    def _texts(self, image: _Image) -> dict[str, int | str]:
        column = self._settings.text_column
        if column is None:
            return {}
        row = self._row(image, f"text_column: {column}")
        value = row.value(column)
        if not isinstance(value, str):
            raise GanpipeError(f"{row.where}: {column} is {value!r}; expected a text")
        return {"text": value}

    def check(self) -> None:
        self._class_names()
        for image in self._images():
            self._texts(image)

    def describe(self) -> Description:
        self.check()
        labels = self._class_names()
        return Description(
            fields={
                "image": Pictures(),
                **({"label": Classes(_classes_by_number(labels))} if labels else {}),
                **({"text": Texts()} if self._settings.text_column else {}),
            },
            text=self._settings.description,
            licence=self._settings.licence,
            num_images=len(self._images()),
        )

    def _split(self, image: _Image) -> Split | None:
        if self._settings.splits == "mix":
            return None
        return "train" if self._subset_of[image.parts[0]] == "train" else "validation"

    def items(self) -> Items:
        root, images, labels = self._root().absolute(), self._images(), self._class_names()
        numbers = {name: number for number, name in enumerate(_classes_by_number(labels or []))}

        def make() -> Iterator[Item]:
            for position, image in enumerate(images):
                yield Item(
                    name=files.printable("/".join(image.parts)),
                    images={"image": EncodedFile(root.joinpath(*image.parts))},
                    values={**({"label": numbers[labels[position]]} if labels else {}), **self._texts(image)},
                    split=self._split(image),
                )

        return Items(len(images), make)

    def left_out(self) -> tuple[LeftOut, ...]:
        return self._left_out.result()

    def fingerprint(self) -> str:
        root = self._root()
        return files.fingerprint(root.joinpath(*parts) for parts in self._list())


def _is_named_like_table(name: str) -> bool:
    """Whether a file's name is that of a table about the images."""
    return name.startswith("metadata.") and not files.is_image(name)


def _class_name(row: imagefolder_metadata.Row, column: str) -> str:
    value: Any = row.value(column)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise GanpipeError(f"{row.where}: {column} is {value!r}; expected a class: a name or a whole number")
    return str(value)


def _classes_by_number(labels: Sequence[str]) -> tuple[str, ...]:
    """The classes by number: sorted as numbers if all names are numbers, else by name."""
    names = set(labels)
    return tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names))
