"""Peak signal-to-noise ratio of the images that a generator is given, before it does anything.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np

from .base import PairMetric
from .psnr import Psnr


class PsnrOfGiven(PairMetric):
    """It says nothing about the generator: `psnr` has to be compared with it."""

    better = "higher"
    tells = (
        "Peak signal-to-noise ratio, in dB, of each given image, resized (bicubic), against the image that should be "
        "made of it: what psnr compares with"
    )
    compared = ("given", "targets")

    def compare_pairs(self, samples_NCHW: np.ndarray, targets_NCHW: np.ndarray) -> np.ndarray:
        return Psnr().compare_pairs(samples_NCHW, targets_NCHW)
