"""FID at infinitely many samples (Chong & Forsyth 2020, arXiv 1911.07023).

Legend: M samples, D features, K numbers of samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..frechet import Gaussian, gaussian_distance
from .base import Estimate, Metric

if TYPE_CHECKING:
    from ..measured import Measured

_SHARES = (1 / 4, 1 / 2, 1)
"""Shares of the samples whose FIDs are extrapolated. The paper takes 15 shares from a tenth on: a tenth of its 50,000
samples are still more than there are features."""


class FidInfinity(Metric):
    """FID falls along a line in 1/M: at 1/M = 0 it has no bias of the number of samples; that of the number of real
    images remains. None where a quarter of the samples are fewer than features, because there is no line then."""

    better = "lower"
    needs = frozenset({"features"})
    tells = "FID extrapolated to infinitely many samples, so that FIDs of different numbers of samples can be compared"

    def compute(self, measured: Measured) -> Estimate | None:
        features_MD, real = measured.features_MD, measured.real.gaussian
        numbers_K = np.array([round(share * len(features_MD)) for share in _SHARES])
        if numbers_K[0] <= features_MD.shape[1]:
            return None
        first, *further = np.split(features_MD, numbers_K[:-1])
        fitted = [Gaussian.fit(first)]
        for part in further:
            fitted.append(fitted[-1].merge(Gaussian.fit(part)))
        weights_K = _weights(numbers_K)
        value = weights_K @ [gaussian_distance(real, each) for each in fitted]
        # A sample counts in the FID of every share that it belongs to.
        influence_K = (weights_K / numbers_K)[::-1].cumsum()[::-1]
        scatter = measured.fid_deviation * np.sqrt(np.diff(numbers_K, prepend=0) @ influence_K**2)
        return Estimate(float(value), float(scatter))


def _weights(numbers_K: np.ndarray) -> np.ndarray:
    """The value at 0 of the line that is fitted to values at 1 / `numbers_K`, as weights of these values."""
    lines_K2 = np.stack([1 / numbers_K, np.ones(len(numbers_K))], 1)
    weights_K: np.ndarray = np.linalg.pinv(lines_K2)[1]
    return weights_K
