"""Peak signal-to-noise ratio of paired images.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from .base import PairMetric

_PEAK = 255.0


class Psnr(PairMetric):
    """The mean over images of 10 log10(255^2 / mean squared error).

    The ratio of two equal images is infinite, and would make the mean infinite, too. Such a pair counts as if one value
    of the image differed by 1.
    """

    better = "higher"
    tells = "Peak signal-to-noise ratio, in dB, of each generated image against the image that it should be"
    beside = ("before", "psnr_of_given")

    def compare_pairs(self, samples_NCHW: np.ndarray, targets_NCHW: np.ndarray) -> np.ndarray:
        from torchmetrics.functional.image import peak_signal_noise_ratio

        samples, targets = (torch.from_numpy(images).float() for images in (samples_NCHW, targets_NCHW))
        found_N = peak_signal_noise_ratio(samples, targets, data_range=_PEAK, reduction="none", dim=(1, 2, 3))
        most = 10 * math.log10(_PEAK**2 * math.prod(samples.shape[1:]))
        return found_N.clamp(max=most).double().numpy()
