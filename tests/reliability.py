"""What the fault tests saw: `fault` notes each that is tried; `make reliability` writes docs/reliability.md's table.

A test of a fault says what it does, when the fault struck and when the work had recovered:

    with fault("SIGKILL to a worker, 2 workers") as trial:
        process.kill()
        trial.struck()
        ...  # wait for the work to go on; assert that nothing is lost
        trial.recovered(lost="the images since the last checkpoint")
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SEEN = ROOT / ".ganpipe" / "reliability.jsonl"
"""One line a fault that was tried; `make reliability` starts it anew."""
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- table: make reliability -->", "<!-- end of table -->"


@dataclass
class Trial:
    """One fault, tried once.

    Attributes:
        lost: what the fault cost, in words; `nothing` where nothing had to be done again.
        seconds: from the fault to work going on.
    """

    name: str
    survived: bool = False
    lost: str = "nothing"
    seconds: float | None = None
    _struck: float | None = None

    def struck(self) -> None:
        """The fault is there now."""
        self._struck = time.monotonic()

    def recovered(self, lost: str = "nothing") -> None:
        """The work goes on now, and this was lost."""
        if self._struck is None:
            raise RuntimeError(f"{self.name}: recovered() before struck()")
        self.seconds, self.lost, self.survived = time.monotonic() - self._struck, lost, True


@contextmanager
def fault(name: str) -> Iterator[Trial]:
    """Note one try of the fault `name`. It was survived if the block ends without an error after `recovered()`."""
    trial = Trial(name)
    try:
        yield trial
    except BaseException:
        trial.survived = False
        raise
    finally:
        SEEN.parent.mkdir(parents=True, exist_ok=True)
        line = {"fault": name, "survived": trial.survived, "lost": trial.lost, "seconds": trial.seconds}
        with SEEN.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def table(lines: list[dict[str, Any]]) -> str:
    """Rows of fault, times tried, survived, what was lost, median seconds to recover; in the order first seen."""
    rows = ["| fault | tried | survived | lost | seconds to recover (median) |", "|---|---:|---:|---|---:|"]
    for name in dict.fromkeys(line["fault"] for line in lines):
        tried = [line for line in lines if line["fault"] == name]
        lost = "; ".join(dict.fromkeys(line["lost"] for line in tried if line["survived"]))
        seconds = [line["seconds"] for line in tried if line["survived"]]
        median = f"{statistics.median(seconds):.1f}" if seconds else ""
        rows.append(f"| {name} | {len(tried)} | {sum(line['survived'] for line in tried)} | {lost} | {median} |")
    return "\n".join(rows)


def write(page: Path = PAGE, seen: Path = SEEN) -> None:
    """Put the table of `seen` between the page's marks."""
    lines = [json.loads(line) for line in seen.read_text(encoding="utf-8").splitlines()]
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        sys.exit(f"{page}: has no {BEGIN} … {END}")
    page.write_text(f"{before}{BEGIN}\n{table(lines)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write()
