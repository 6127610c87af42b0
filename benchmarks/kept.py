"""Rows that a benchmark keeps in a file of its own, and the table of them on a page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .checkout import ROOT

_END = "<!-- end of table -->"


@dataclasses.dataclass(frozen=True)
class Kept:
    """The rows in benchmarks/<name>.json.

    Attributes:
        page: below docs/, where the table stands between two marks.
        command: that makes it; the first mark names it.
        table: rows -> the table.
    """

    name: str
    page: str
    command: str
    table: Callable[[Sequence[dict[str, Any]]], str]

    @property
    def _results(self) -> Path:
        return ROOT / "benchmarks" / f"{self.name}.json"

    def rows(self) -> list[dict[str, Any]]:
        """What is kept; none at first."""
        found: list[dict[str, Any]] = json.loads(self._results.read_text()) if self._results.exists() else []
        return found

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep the rows, and write the table anew."""
        self._results.write_text(json.dumps(list(rows), indent=2, sort_keys=True) + "\n", encoding="utf-8")
        before, _, after = self._around()
        begin = f"<!-- table: {self.command} -->"
        (ROOT / "docs" / self.page).write_text(f"{before}{begin}\n{self.table(rows)}\n{_END}{after}", encoding="utf-8")

    def shown(self) -> str:
        """The table as it stands on the page."""
        return self._around()[1]

    def _around(self) -> tuple[str, str, str]:
        """The page before the first mark, between the marks, and after the second."""
        text = (ROOT / "docs" / self.page).read_text(encoding="utf-8")
        before, _, rest = text.partition(f"<!-- table: {self.command} -->")
        shown, _, after = rest.partition(_END)
        return before, shown, after
