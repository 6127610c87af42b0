"""How much of an image is lost on its way to the other domain and back (Zhu 2017, arXiv 1703.10593, equation 2).

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np

from .base import PairMetric

_PEAK = 255.0


class CycleError(PairMetric):
    """The L1 distance of pixels, from 0 (equal) to 1 (black and white). Between the two translations the image is held
    in bytes, as users hold it."""

    better = "lower"
    needs = frozenset({"directions"})
    compared = ("cycled", "given")
    tells = "Mean absolute difference, from 0 to 1, of each given image and its translation there and back"

    def compare_pairs(self, first_NCHW: np.ndarray, second_NCHW: np.ndarray) -> np.ndarray:
        found_N: np.ndarray = np.abs(first_NCHW.astype(np.float64) - second_NCHW).mean((1, 2, 3)) / _PEAK
        return found_N
