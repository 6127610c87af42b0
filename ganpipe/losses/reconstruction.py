"""How far images are from what they should be. Results are scalars, computed in float32 or wider."""

from __future__ import annotations

from torch import Tensor

from .adversarial import wide


def l1(first: Tensor, second: Tensor) -> Tensor:
    """The mean absolute difference of tensors of one shape."""
    return (wide(first) - wide(second)).abs().mean()


def squared(first: Tensor, second: Tensor) -> Tensor:
    """The mean squared difference of tensors of one shape."""
    return (wide(first) - wide(second)).square().mean()
