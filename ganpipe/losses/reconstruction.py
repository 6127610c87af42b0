"""How far images are from what they should be. Results are scalars, computed in float32 or wider."""

from __future__ import annotations

import torch
from torch import Tensor


def l1(first: Tensor, second: Tensor) -> Tensor:
    """The mean absolute difference of tensors of one shape."""
    return (_wide(first) - _wide(second)).abs().mean()


def squared(first: Tensor, second: Tensor) -> Tensor:
    """The mean squared difference of tensors of one shape."""
    return (_wide(first) - _wide(second)).square().mean()


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
