"""Reads metadata.csv and metadata.jsonl, the tables about images in the layout of Hugging Face's ImageFolder."""

from __future__ import annotations

import csv
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...documents import parse_json
from ...errors import GanpipeError
from ...section import nearest

NAMES = ("metadata.csv", "metadata.jsonl")
FILE_NAME = "file_name"
_MAX_TABLE_BYTES = 2**30


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        where: file and line for error messages, such as "metadata.csv:3".
        values: by column.
    """

    where: str
    values: dict[str, Any]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the image's path below the table's folder.

        Raises:
            GanpipeError: there is no file_name, or it leads out of the folder.
        """
        name = self.values.get(FILE_NAME)
        if not isinstance(name, str) or not name:
            raise GanpipeError(f"{self.where}: {FILE_NAME} is {name!r}; expected the path of an image")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise GanpipeError(
                f"{self.where}: {FILE_NAME} {name!r} leads out of the folder; expected a path below it, with / between "
                "its parts"
            )
        return path.parts

    def value(self, column: str) -> Any:
        """The value in a column.

        Raises:
            GanpipeError: the row has no such column; names the most similar column.
        """
        if column not in self.values:
            raise GanpipeError(f"{self.where}: has no column {column!r}; {nearest(column, self.values)}")
        return self.values[column]


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        if FILE_NAME not in header:
            raise GanpipeError(f"{path}:1: has no column {FILE_NAME!r}; {nearest(FILE_NAME, header)}")
        if len(set(header)) != len(header):
            raise GanpipeError(f"{path}:1: a column is there twice: {', '.join(header)}")
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(header):
                raise GanpipeError(f"{where}: {len(cells)} values, but {len(header)} columns")
            yield Row(where, dict(zip(header, cells, strict=True)))


def _json_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                values = parse_json(line)
            except ValueError as error:
                raise GanpipeError(f"{where}: not JSON ({error})") from None
            if not isinstance(values, dict):
                raise GanpipeError(f"{where}: expected a JSON object, found {type(values).__name__}")
            row = Row(where, values)
            row.value(FILE_NAME)
            yield row


def read_rows(path: Path) -> list[Row]:
    """All rows of a table. The columns are checked, the values are not.

    Raises:
        GanpipeError: the table cannot be read; names file and line.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_TABLE_BYTES:
            raise GanpipeError(f"{path}: expected a regular file of at most {_MAX_TABLE_BYTES:,} bytes")
        return list(_csv_rows(path) if path.suffix == ".csv" else _json_rows(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GanpipeError(f"{path}: cannot be read ({error})") from None
