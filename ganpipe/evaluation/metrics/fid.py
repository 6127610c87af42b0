"""Fréchet inception distance (Heusel 2017, arXiv 1706.08500)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..frechet import gaussian_distance
from .base import Estimate, Metric

if TYPE_CHECKING:
    from ..measured import Measured


class Fid(Metric):
    """Biased: it falls as the number of samples grows, so only FIDs of equally many samples can be compared.
    `fid_of_real` is what a perfect generator would have; `fid_infinity` is without this bias."""

    better = "lower"
    needs = frozenset({"features"})
    tells = "Fréchet distance between features of generated and of real images"
    beside = ("floor", "fid_of_real")

    def compute(self, measured: Measured) -> Estimate:
        value = gaussian_distance(measured.real.gaussian, measured.gaussian)
        return Estimate(value, float(measured.fid_deviation / np.sqrt(len(measured.features_MD))))
