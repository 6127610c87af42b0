"""Fréchet inception distance (Heusel 2017, arXiv 1706.08500).

Legend: M samples, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..frechet import Gaussian, gaussian_distance, standard_error
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
        return estimate(measured.real.gaussian, measured.features_MD)


def estimate(real: Gaussian, features_MD: np.ndarray) -> Estimate:
    """The FID of samples, (M, D)."""
    return Estimate(gaussian_distance(real, Gaussian.fit(features_MD)), standard_error(real, features_MD))
