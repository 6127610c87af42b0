"""How often the words that an image was made of are found among others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Estimate, Metric, share_of

if TYPE_CHECKING:
    from ..measured import Measured


class RPrecision(Metric):
    """R-precision (Xu 2017, arXiv 1711.10485, section 4) by `retrieval.WordFinder`, which is fitted to real images of
    other words. Chance is 1 %. `r_precision_of_real` says how far to trust it."""

    better = "higher"
    needs = frozenset({"features", "tokens"})
    tells = "Share of generated images whose words are found among 100 texts, by a regression fitted to real images"
    beside = ("real images", "r_precision_of_real")

    def compute(self, measured: Measured) -> Estimate | None:
        found = measured.r_precisions
        # The finder was fitted to the words of the first half.
        num_words_of = min(len(measured.real.features_ND), len(measured.features_MD)) // 2
        return None if found is None else share_of(found[0], num_words_of)
