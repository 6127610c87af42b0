"""Parquet files with a column of encoded images, as Hugging Face's datasets are stored; local or at URLs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ...errors import GanpipeError
from ...section import nearest
from ..access.host_cache import host_cache
from . import files
from .base import (
    Classes,
    Description,
    ImageInMemory,
    ImageReference,
    Item,
    MissingImage,
    Pictures,
    Source,
    SourceSettings,
    Texts,
)
from .foreign_classes import GivenClasses, class_name, class_number, classes_among
from .foreign_files import ForeignFile, change_marks, expand_patterns, naming_errors, open_foreign

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_KEY = "sources.parquet"
_ROWS_AT_ONCE = 64
_CHUNK_BYTES = 2**22


class ParquetSettings(SourceSettings):
    """Parquet files that exist already."""

    path: str | None = None
    """The folder of local files. It is a dependency in dvc.yaml: if all are at URLs, name a folder that exists."""
    files: tuple[str, ...] = Field(("*.parquet",), min_length=1)
    """Which files: names below `path`, or URLs (http, https; s3, gs, ... if fsspec's driver is installed). Braces stand
    for several names (train-{00000..00041}.parquet); *, ? and ** work for local files only. A file at a URL is fetched
    as a whole, one at a time, and removed after it was read."""
    image: str = "image"
    """The column with the images: files (PNG, JPEG, ...) as bytes, or Hugging Face's pairs of bytes and path."""
    label: str | None = None
    """The column with the classes, numbers or names. Null: no labels."""
    text: str | None = None
    """The column with texts. Null: no texts."""
    classes: GivenClasses = None
    """Names of the classes, or their number. Null: the names that Hugging Face's metadata in the first local file give,
    else all labels of local files are read to find the classes. It has to be set if files at URLs have labels."""
    description: str = "Images from Parquet files."
    """One sentence for the model card."""
    licence: str = "unknown (Parquet files)"
    """Under which terms the images may be used; it is written into every registered model."""


class Parquet(Source):
    """Rows of Parquet files."""

    Settings = ParquetSettings

    def __init__(self, settings: SourceSettings) -> None:
        assert isinstance(settings, ParquetSettings)
        self._settings = settings
        self._names: tuple[str, ...] | None = None

    def _files(self) -> list[ForeignFile]:
        """All files; never empty."""
        root = Path(self._settings.path or "").expanduser()
        if any("://" not in pattern for pattern in self._settings.files):
            if self._settings.path is None:
                raise GanpipeError(f"{_KEY}.path: not set; it is the folder that holds your Parquet files")
            if not root.is_dir():
                kind = "is a file, not a folder" if root.exists() else "does not exist"
                raise GanpipeError(f"{_KEY}.path: {root} {kind}")
        return expand_patterns(self._settings.files, root, "parquet", "files")

    def _local_files(self) -> list[ForeignFile]:
        return [file for file in self._files() if not file.is_remote]

    @property
    def _columns(self) -> dict[str, str]:
        """Setting -> the column that it names."""
        found = {name: getattr(self._settings, name) for name in ("image", "label", "text")}
        return {setting: column for setting, column in found.items() if column is not None}

    @contextmanager
    def _opened(self, file: ForeignFile) -> Iterator[pq.ParquetFile]:
        """The file, which has the columns that the settings name."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with _on_disk(file) as path, path.open("rb") as content:
            try:
                table = pq.ParquetFile(content)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise GanpipeError(f"{file.name}: not a Parquet file ({_first_line(error)})") from None
            schema = table.schema_arrow
            for setting, column in self._columns.items():
                if column not in schema.names:
                    raise GanpipeError(
                        f"{file.name}: has no column {column!r}, which {_KEY}.{setting} names; "
                        f"{nearest(column, schema.names)}"
                    )
            _require_type(file, schema.field(self._settings.image))
            yield table

    def _rows(self, file: ForeignFile, settings: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number, values by setting) of each row."""
        import pyarrow as pa

        columns, number = {setting: self._columns[setting] for setting in settings}, 0
        with self._opened(file) as table:
            try:
                for batch in table.iter_batches(_ROWS_AT_ONCE, columns=list(dict.fromkeys(columns.values()))):
                    values = {setting: batch.column(column).to_pylist() for setting, column in columns.items()}
                    for row in range(batch.num_rows):
                        yield number, {setting: cells[row] for setting, cells in values.items()}
                        number += 1
            except (pa.ArrowException, OSError) as error:
                raise GanpipeError(f"{file.name}: damaged after row {number - 1} ({_first_line(error)})") from None

    def _classes(self) -> tuple[str, ...]:
        """Names of the classes, by number; empty without labels."""
        given = self._settings.classes
        if self._settings.label is None:
            return ()
        if isinstance(given, int):
            return tuple(map(str, range(given)))
        if given is not None:
            return given
        if self._names is None:
            listed = self._files()
            if remote := next((file for file in listed if file.is_remote), None):
                raise GanpipeError(
                    f"{_KEY}.classes: not set; {remote.name} is not on this machine, so give the names of its classes, "
                    "or their number"
                )
            with self._opened(listed[0]) as table:
                self._names = _names_in_metadata(table.schema_arrow, self._settings.label)
            self._names = self._names or self._classes_in(listed)
        return self._names

    def _classes_in(self, listed: list[ForeignFile]) -> tuple[str, ...]:
        return classes_among(
            (
                (file.name, self._class_name(file, number, values["label"]))
                for file in listed
                for number, values in self._rows(file, ["label"])
            ),
            f"{_KEY}.label",
        )

    def _class_name(self, file: ForeignFile, number: int, value: Any) -> str:
        return class_name(value, f"{file.name}: row {number}", str(self._settings.label))

    def check(self) -> None:
        numbers = {name: number for number, name in enumerate(self._classes())}
        for file in self._local_files():
            with self._opened(file):
                pass
            # Columns are read by themselves: all labels and texts are known before any image is read.
            for number, values in self._rows(file, set(self._columns) - {"image"}):
                self._values(file, number, values, numbers)

    def describe(self) -> Description:
        num_images = None
        if len(local := self._local_files()) == len(self._files()):
            num_images = 0
            for file in local:
                with self._opened(file) as table:
                    num_images += table.metadata.num_rows
        return Description(
            fields={
                "image": Pictures(),
                **({"label": Classes(self._classes())} if self._settings.label else {}),
                **({"text": Texts()} if self._settings.text else {}),
            },
            text=self._settings.description,
            licence=self._settings.licence,
            num_images=num_images,
        )

    def items(self) -> Iterable[Item]:
        listed, numbers = self._files(), {name: number for number, name in enumerate(self._classes())}
        for file in listed:
            name = file.name if file.is_remote else str(Path(file.url).relative_to(Path(self._settings.path or "")))
            for number, values in self._rows(file, self._columns):
                image = _image_reference(file, number, values.pop("image"))
                named = files.printable(f"{name}: row {number}")
                yield Item(named, {"image": image}, self._values(file, number, values, numbers))

    def _values(
        self, file: ForeignFile, number: int, found: dict[str, Any], numbers: dict[str, int]
    ) -> dict[str, int | str]:
        """Label and text of a row, as far as `found` has them."""
        values: dict[str, int | str] = {}
        if "label" in found:
            name = self._class_name(file, number, found["label"])
            values["label"] = class_number(name, numbers, f"{file.name}: row {number}", str(self._settings.label))
        if "text" in found:
            if not isinstance(found["text"], str):
                raise GanpipeError(
                    f"{file.name}: row {number}: {self._settings.text} is {found['text']!r}; expected a text"
                )
            values["text"] = found["text"]
        return values

    def fingerprint(self) -> str:
        with ThreadPoolExecutor(16) as threads:
            return files.digest_of(threads.map(change_marks, self._files()))


@contextmanager
def _on_disk(file: ForeignFile) -> Iterator[Path]:
    """The path of a local file, or of a copy of the file at a URL, which is removed afterwards."""
    if not file.is_remote:
        yield Path(file.url)
        return
    root = host_cache() / "parquet"
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=root) as copy:
        num_bytes = 0
        with naming_errors(file, lambda: f"after {num_bytes:,} bytes", "try again later"), open_foreign(file) as source:
            while chunk := source.read(_CHUNK_BYTES):
                copy.write(chunk)
                num_bytes += len(chunk)
        copy.flush()
        yield Path(copy.name)


def _require_type(file: ForeignFile, column: pa.Field) -> None:
    """Raise GanpipeError unless the column can hold images."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_struct(kind):
        kind = next((kind.field(n).type for n in range(kind.num_fields) if kind.field(n).name == "bytes"), kind)
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise GanpipeError(
            f"{file.name}: the column {column.name!r}, which {_KEY}.image names, holds {column.type}; expected encoded "
            "images as bytes"
        )


def _names_in_metadata(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """The names of a column's classes that Hugging Face's `datasets` writes into a file; empty if there are none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, ValueError, TypeError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _image_reference(file: ForeignFile, number: int, value: Any) -> ImageReference:
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return ImageInMemory(content)
    where = f"{file.name}: row {number}"
    if isinstance(value, dict) and value.get("path"):
        return MissingImage(f"{where} names the file {value['path']!r} and does not hold its content")
    return MissingImage(f"{where} has no image")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
