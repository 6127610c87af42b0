"""Files that a source leaves out: counted by kind, with the names of the first ones, so that all are reported."""

from __future__ import annotations

from collections.abc import Iterable

from .manifest import LeftOut

HIDDEN = "hidden"
BROKEN_LINK = "broken link"
NO_EXTENSION = "without extension"
UNNAMED = "images that no table names"
OTHER_SUBSET = "images of subsets that are not taken"
_OTHER = "other"
_MAX_KINDS = 20
_MAX_NAMES = 3
_MAX_NAME = 200
_ADVICE = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "`pip install pillow-heif` to read them"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"), "unpack them"),
    **dict.fromkeys(
        (".svg", ".eps", ".pdf", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".mp4", ".mov", ".npy"),
        "write them as PNG or JPEG",
    ),
    NO_EXTENSION: "their content does not begin like an image's",
    HIDDEN: "their names begin with a dot",
}
"""Kind -> what to do about such files, or why they are left out."""


class Tally:
    """Counts files by kind. Its size is bounded: further kinds count as "other", and few names are kept."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        if kind not in self._numbers and len(self._numbers) >= _MAX_KINDS:
            kind = _OTHER
        self._numbers[kind] = self._numbers.get(kind, 0) + 1
        names = self._names.setdefault(kind, [])
        if len(names) < _MAX_NAMES:
            names.append(name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}...")

    def result(self) -> tuple[LeftOut, ...]:
        """One entry per kind, the most frequent kind first."""
        kinds = sorted(self._numbers, key=lambda kind: (-self._numbers[kind], kind))
        return tuple(LeftOut(kind=kind, number=self._numbers[kind], names=tuple(self._names[kind])) for kind in kinds)


def summary_lines(left_out: Iterable[LeftOut]) -> list[str]:
    """One line per kind, with what to do about such files."""
    return [_line(one) for one in left_out]


def _line(one: LeftOut) -> str:
    more = ", ..." if one.number > len(one.names) else ""
    advice = f"; {_ADVICE[one.kind]}" if one.kind in _ADVICE else ""
    return f"{one.number:,} {one.kind} ({', '.join(one.names)}{more}){advice}"
