"""How much of the edges of films is missing or too much, wherever the edges are.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np

from .base import PairMetric
from .sharpness_difference import steps


class EdgeError(PairMetric):
    """|1 - E(sample) / E(target)| with E(image) the sum over pixels of |step down| + |step to the right|.

    Where the future is not determined, a sharp frame of another future is as wrong as a blurred one for every metric
    that compares pixel by pixel. Of edges this one compares the amount alone, so that it tells the two apart.
    """

    better = "lower"
    needs = frozenset({"pairs", "frames"})
    tells = (
        "How far the amount of edges in generated frames is from that in the frames that they should be, as a share: "
        "blur and noise raise it, edges in another place do not"
    )
    min_side = 2

    def compare_pairs(self, samples_NCHW: np.ndarray, targets_NCHW: np.ndarray) -> np.ndarray:
        made_N, expected_N = (steps(images).sum((1, 2, 3)) for images in (samples_NCHW, targets_NCHW))
        found: np.ndarray = np.abs(made_N - expected_N) / np.maximum(expected_N, 1.0)  # frames may be flat
        return found
