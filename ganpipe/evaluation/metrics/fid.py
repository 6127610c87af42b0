"""Fréchet inception distance (Heusel 2017, arXiv 1706.08500)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..frechet import Gaussian, gaussian_distance
from .base import Metric

if TYPE_CHECKING:
    from ..measured import Measured


class Fid(Metric):
    """Biased: it falls as the number of samples grows, so only FIDs of equally many samples can be compared."""

    better = "lower"
    needs = frozenset({"features"})
    tells = "Fréchet distance between features of generated and of real images"

    def compute(self, measured: Measured) -> float:
        return gaussian_distance(measured.real.gaussian, Gaussian.fit(measured.features_MD))
