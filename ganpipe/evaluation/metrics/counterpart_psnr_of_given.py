"""Peak signal-to-noise ratio of images and their counterparts in another domain, before they are translated.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np

from .base import PairMetric
from .psnr import Psnr


class CounterpartPsnrOfGiven(PairMetric):
    """It says nothing about the generator: `counterpart_psnr` has to be compared with it."""

    better = "higher"
    needs = frozenset({"counterparts"})
    compared = ("given", "counterparts")
    tells = (
        "Peak signal-to-noise ratio, in dB, of each given image against the real image of the same thing in the domain "
        "that it is translated to: what counterpart_psnr compares with"
    )

    def compare_pairs(self, first_NCHW: np.ndarray, second_NCHW: np.ndarray) -> np.ndarray:
        return Psnr().compare_pairs(first_NCHW, second_NCHW)
