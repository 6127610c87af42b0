"""How far images are from what they should be. Results are scalars, computed in float32 or wider."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .adversarial import wide


def l1(first: Tensor, second: Tensor) -> Tensor:
    """The mean absolute difference of tensors of one shape."""
    return (wide(first) - wide(second)).abs().mean()


def squared(first: Tensor, second: Tensor) -> Tensor:
    """The mean squared difference of tensors of one shape."""
    return (wide(first) - wide(second)).square().mean()


def weighted_squared(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """The mean squared difference under weights: sum of weight * difference^2 over the sum of weights of each sample.

    Args:
        first, second: (N, C, H, W).
        weight: (N, 1, H, W), not negative, above zero somewhere in each sample.
    """
    weight_N1HW = wide(weight)
    difference_NHW = (wide(first) - wide(second)).square().mean(1)
    total_N = (weight_N1HW[:, 0] * difference_NHW).sum((1, 2))
    return (total_N / weight_N1HW.sum((1, 2, 3))).mean()


def feature_matching(maps: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean over layers of the mean absolute difference of feature maps (Wang 2018, arXiv 1711.11585, eq. 4).

    Args:
        maps: of each layer, for two kinds of images.
    """
    return torch.stack([l1(first, second) for first, second in maps]).mean()


def gradient_difference(made: Tensor, wanted: Tensor) -> Tensor:
    """The mean absolute difference between the steps from pixel to pixel of two images, which are large at edges: what
    is blurred differs (Mathieu 2015, arXiv 1511.05440, eq. 6 with alpha = 1).

    Args:
        made, wanted: (..., H, W).
    """
    made, wanted = wide(made), wide(wanted)
    return l1(made.diff(dim=-1).abs(), wanted.diff(dim=-1).abs()) + l1(
        made.diff(dim=-2).abs(), wanted.diff(dim=-2).abs()
    )


def total_variation(images: Tensor) -> Tensor:
    """The mean absolute step from pixel to pixel, along rows and columns (Rudin 1992), of (..., H, W)."""
    images = wide(images)
    return images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()
