"""How often the words of a real image are found among others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Metric

if TYPE_CHECKING:
    from ..measured import Measured


class RPrecisionOfReal(Metric):
    """It says nothing about the generator: `r_precision` has to be compared with it."""

    better = "higher"
    needs = frozenset({"features", "tokens"})
    tells = "Share of real images whose words are found among 100 texts: what r_precision compares with"

    def compute(self, measured: Measured) -> float | None:
        found = measured.r_precisions
        return None if found is None else found[1]
