"""Structural similarity of the images that a generator is given, before it does anything.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np

from .base import PairMetric
from .ssim import Ssim


class SsimOfGiven(PairMetric):
    """It says nothing about the generator: `ssim` has to be compared with it."""

    better = "higher"
    tells = (
        "Structural similarity of each given image, resized (bicubic), to the image that should be made of it: what "
        "ssim compares with"
    )
    compared = ("given", "targets")
    min_side = Ssim.min_side

    def compare_pairs(self, samples_NCHW: np.ndarray, targets_NCHW: np.ndarray) -> np.ndarray:
        return Ssim().compare_pairs(samples_NCHW, targets_NCHW)
