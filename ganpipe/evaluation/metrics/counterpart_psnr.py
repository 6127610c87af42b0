"""Peak signal-to-noise ratio of translated images and their counterparts, which the generator never saw beside them.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np

from .base import PairMetric
from .psnr import Psnr


class CounterpartPsnr(PairMetric):
    """`counterpart_psnr_of_given` says what it would be without a translation."""

    better = "higher"
    needs = frozenset({"counterparts"})
    compared = ("samples", "counterparts")
    tells = (
        "Peak signal-to-noise ratio, in dB, of each translated image against the real image of the same thing in the "
        "domain that it was translated to"
    )
    beside = ("before", "counterpart_psnr_of_given")

    def compare_pairs(self, first_NCHW: np.ndarray, second_NCHW: np.ndarray) -> np.ndarray:
        return Psnr().compare_pairs(first_NCHW, second_NCHW)
