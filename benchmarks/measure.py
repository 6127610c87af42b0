"""How a benchmark measures: the things to compare in turns, medians over rounds, and a table of what came out."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

median = statistics.median


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: what was measured.
        value: the figure, in `unit`: `x` for a ratio, `s`, `%`, or `images/s`.
        goal: `≥ 2.5`, `≤ 6`, or empty.
        detail: what the figure was made of.
    """

    what: str
    value: float
    unit: str
    goal: str = ""
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if not self.goal:
            return None
        sign, bound = self.goal.split()
        return self.value >= float(bound) if sign == "≥" else self.value <= float(bound)


def alternate(things: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each thing gives, in turns, `rounds` times; an extra first turn of each warms up and does not count."""
    found: dict[str, list[float]] = {name: [] for name in things}
    for turn in range(rounds + 1):
        for name, thing in things.items():
            value = thing()
            if turn > 0:
                found[name].append(value)
    return found


def ratio(found: Mapping[str, list[float]], over: str, under: str) -> float:
    """The median over the rounds of `over` divided by `under`."""
    return median([first / second for first, second in zip(found[over], found[under], strict=True)])
