"""How sharp the frames of films are, beside those that they should be (Mathieu 2015, arXiv 1511.05440, section 4).

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import math

import numpy as np

from .base import PairMetric

_PEAK = 255.0


class SharpnessDifference(PairMetric):
    """10 log10(255^2 / D) with D the mean over pixels of |step of the sample - step of its target|.

    A step is |step down| + |step to the right|. As in `psnr`, equal frames count as if one step differed by 1.
    """

    better = "higher"
    needs = frozenset({"pairs", "frames"})
    tells = "How sharp generated frames are beside the frames that they should be, in dB: blur and noise lower it"
    min_side = 2

    def compare_pairs(self, samples_NCHW: np.ndarray, targets_NCHW: np.ndarray) -> np.ndarray:
        difference_N = np.abs(steps(samples_NCHW) - steps(targets_NCHW)).mean((1, 2, 3))
        least = 1 / math.prod(samples_NCHW.shape[1:])
        found: np.ndarray = 10 * np.log10(_PEAK**2 / np.maximum(difference_N, least))
        return found


def steps(images_NCHW: np.ndarray) -> np.ndarray:
    """|step down| + |step to the right| of each pixel but those of the last row and column."""
    wide = images_NCHW.astype(np.float64)
    down, right = np.diff(wide, axis=2)[..., :-1], np.diff(wide, axis=3)[..., :-1, :]
    steps: np.ndarray = np.abs(down) + np.abs(right)
    return steps
