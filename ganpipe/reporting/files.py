"""Reading the outputs of stages. A missing or damaged file is noted, so that the rest of the page can still be made."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from .contents import Missing, Picture

ValueT = TypeVar("ValueT")
Rows = list[dict[str, str]]

LARGEST_PICTURE_BYTES = 600_000
"""An image file above this size is put into the page as a smaller JPEG."""
REDUCED_SIDE = 1400
"""Longer side of such a JPEG, pixels."""
_MIME = {"PNG": "png", "JPEG": "jpeg", "GIF": "gif", "WEBP": "webp"}


class Reader:
    """Reads files of one checkout and collects what is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._absent: dict[str, list[str]] = {}
        self._notes: list[Missing] = []

    @property
    def missing(self) -> list[Missing]:
        """Everything that was noted so far; the missing outputs of one stage are one entry."""
        absent = [
            Missing(
                stage, f"{', '.join(paths)}: not there; `{_maker(stage)}` makes {'it' if len(paths) == 1 else 'them'}"
            )
            for stage, paths in self._absent.items()
        ]
        return [*absent, *self._notes]

    def note(self, part: str, text: str) -> None:
        """Note that something is missing which is not an output; `text` says what it is, and what to do."""
        self._notes.append(Missing(part, text.replace(f"{self.root}/", "")))

    def absent(self, path: Path, made_by: str) -> None:
        """Note that an output of the stage `made_by` does not exist."""
        self._absent.setdefault(made_by, []).append(str(path))

    def files(self, folder: Path, pattern: str, made_by: str) -> list[Path]:
        """The files in a folder that match `pattern`, sorted, relative to the checkout; empty if there is no folder."""
        if not (self.root / folder).is_dir():
            self.absent(folder, made_by)
            return []
        return sorted(path.relative_to(self.root) for path in (self.root / folder).glob(pattern))

    def json(self, path: Path, made_by: str) -> dict[str, Any] | None:
        """The JSON object in a file; None if the file is missing or damaged, which is noted."""

        def read(file: Path) -> dict[str, Any]:
            values = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError(f"holds a {type(values).__name__}, not an object")
            return values

        return self._read(path, made_by, read)

    def rows(self, path: Path, made_by: str, *columns: str) -> Rows | None:
        """The rows of a CSV file whose header has `columns`; None if the file is missing or damaged, which is noted."""

        def read(file: Path) -> Rows:
            table = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")), restval="")
            lacking = set(columns) - set(table.fieldnames or ())
            if lacking:
                raise ValueError(f"no column {', '.join(sorted(lacking))}")
            rows = list(table)
            if any(None in row for row in rows):
                raise ValueError("a row has more values than the header names")
            return rows

        return self._read(path, made_by, read)

    def picture(self, path: Path, made_by: str) -> Picture | None:
        """An image file as a data URI; None if the file is missing or damaged, which is noted."""
        return self._read(path, made_by, lambda file: _picture(path, file.read_bytes()))

    def _read(self, path: Path, made_by: str, read: Callable[[Path], ValueT]) -> ValueT | None:
        try:
            return read(self.root / path)
        except FileNotFoundError:
            self.absent(path, made_by)
        except (OSError, ValueError, csv.Error, Image.DecompressionBombError) as error:
            self.note(
                made_by, f"{path} cannot be read ({error}); `{_maker(made_by, '--force --single-item ')}` makes it anew"
            )
        return None


def _maker(made_by: str, options: str = "") -> str:
    """The command that makes what a stage, or `explore KIND`, leaves.

    Args:
        options: of `dvc repro`.
    """
    return f"ganpipe {made_by}" if made_by.startswith("explore ") else f"dvc repro {options}{made_by}"


def number(text: str | float | None) -> float | None:
    """`text` as a finite number; None if it is not one."""
    try:
        value = float(text) if text not in (None, "") else math.nan
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _picture(path: Path, data: bytes) -> Picture:
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # a file that was cut short fails here
        kind, (width, height), note = _MIME.get(image.format or ""), image.size, ""
        if kind is None or len(data) > LARGEST_PICTURE_BYTES:
            reduced = image.convert("RGB")
            reduced.thumbnail((REDUCED_SIDE, REDUCED_SIDE))
            buffer = io.BytesIO()
            reduced.save(buffer, "JPEG", quality=85)
            data, kind, note = buffer.getvalue(), "jpeg", f"made smaller: the file has {width} x {height} pixels"
            width, height = reduced.size
    return Picture(str(path), f"data:image/{kind};base64,{base64.b64encode(data).decode()}", width, height, note)
