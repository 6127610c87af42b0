"""Structural similarity of paired images (Wang 2004, "Image quality assessment: from error visibility to structural
similarity").

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np
import torch

from .base import PairMetric

_NUM_AT_ONCE = 32
"""Images that are compared at once; the comparison keeps some ten float images for each of them."""


class Ssim(PairMetric):
    """With the paper's constants and its Gaussian window of 11 x 11 pixels around each pixel; the image is reflected at
    its border. The value of a colour image is the mean over its channels."""

    better = "higher"
    tells = "Structural similarity of each generated image to the image that it should be, 1 for equal images"
    beside = ("before", "ssim_of_given")
    min_side = 6  # half a window is reflected

    def compare_pairs(self, samples_NCHW: np.ndarray, targets_NCHW: np.ndarray) -> np.ndarray:
        from torchmetrics.functional.image import structural_similarity_index_measure

        found = []
        for start in range(0, len(samples_NCHW), _NUM_AT_ONCE):
            rows = slice(start, start + _NUM_AT_ONCE)
            # On a CPU, float64 takes 40 times as long and changes the seventh digit.
            samples, targets = (torch.from_numpy(images[rows]).float() for images in (samples_NCHW, targets_NCHW))
            values_N = structural_similarity_index_measure(samples, targets, data_range=255.0, reduction="none")
            assert isinstance(values_N, torch.Tensor)
            found.append(values_N.reshape(-1).double().numpy())
        return np.concatenate(found)
