"""How often the words that an image was made of are found among others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Metric

if TYPE_CHECKING:
    from ..measured import Measured


class RPrecision(Metric):
    """R-precision (Xu 2017, arXiv 1711.10485, section 4) by `retrieval.WordFinder`, which is fitted to real images of
    other words. Chance is 1 %. `r_precision_of_real` says how far to trust it."""

    better = "higher"
    needs = frozenset({"features", "tokens"})
    tells = "Share of generated images whose words are found among 100 texts, by a regression fitted to real images"

    def compute(self, measured: Measured) -> float | None:
        found = measured.r_precisions
        return None if found is None else found[0]
