"""Kernel inception distance (Bińkowski 2018, arXiv 1801.01401).

Legend: N, M images, S images of a subset, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...errors import GanpipeError
from .base import Estimate, Metric

if TYPE_CHECKING:
    from ..measured import Measured


_LARGEST_FRACTION = 0.5
"""Of the samples in a subset: larger subsets are nearly the same, and tell nothing of their scatter."""


class Kid(Metric):
    """Unbiased: it may be slightly negative."""

    better = "lower"
    needs = frozenset({"features"})
    tells = "Kernel distance between features of generated and of real images"

    def compute(self, measured: Measured) -> float | Estimate:
        settings = measured.settings
        return kid(
            measured.real.features_ND,
            measured.features_MD,
            settings.kid_subsets,
            settings.kid_subset_size,
            settings.seed,
        )


def kid(
    real_ND: np.ndarray, generated_MD: np.ndarray, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> float | Estimate:
    """The squared maximum mean discrepancy under the kernel (x.y / D + 1)^3, unbiased, averaged over random subsets
    (section 3 of the paper); with a standard error where a subset is at most half of the samples.

    Raises:
        GanpipeError: fewer than 2 images.
    """
    size = min(subset_size, len(real_ND), len(generated_MD))
    if size < 2:
        raise GanpipeError(
            f"KID needs 2 images of each kind, got {len(real_ND)} real and {len(generated_MD)} generated"
        )
    generator = np.random.default_rng(seed)
    real, generated = torch.from_numpy(np.asarray(real_ND)), torch.from_numpy(np.asarray(generated_MD))
    estimates = np.empty(num_subsets)
    for index in range(num_subsets):
        x_SD = real[torch.from_numpy(generator.choice(len(real), size, replace=False))]
        y_SD = generated[torch.from_numpy(generator.choice(len(generated), size, replace=False))]
        estimates[index] = _unbiased_mmd(x_SD, y_SD)
    value, fraction = float(estimates.mean()), size / len(generated_MD)
    if num_subsets < 2 or fraction > _LARGEST_FRACTION:
        return value
    # Subsets of a finite set scatter less than new sets of their size would.
    variance = estimates.var(ddof=1) / (1 - fraction)
    return Estimate(value, float(np.sqrt(variance * fraction)))


def _unbiased_mmd(x_SD: Tensor, y_SD: Tensor) -> float:
    """Equation 4 of the paper with samples of equal size."""
    size, num_features = x_SD.shape

    def kernel(a_SD: Tensor, b_SD: Tensor) -> Tensor:
        return (a_SD @ b_SD.T).double().div_(num_features).add_(1).pow_(3)

    xx, yy, xy = kernel(x_SD, x_SD), kernel(y_SD, y_SD), kernel(x_SD, y_SD)
    within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (size * (size - 1))
    return float(within - 2 * xy.mean())
