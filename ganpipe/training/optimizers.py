"""torch's optimisers from a player's settings, and the settings that hold at a moment of the training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..gans.optimizers import SGD, Adam, Optimizer, RMSprop

STATE_NAMES: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.RMSprop: ("step", "square_avg"),
    torch.optim.SGD: ("momentum_buffer",),
}
"""What each optimiser keeps per parameter. `step` is a number, everything else has the parameter's shape."""


def build(parameters: Sequence[nn.Parameter], settings: Optimizer) -> torch.optim.Optimizer:
    """The optimiser of one player, fused where torch offers that."""
    match settings:
        case Adam():
            return torch.optim.Adam(parameters, settings.lr, (settings.beta1, settings.beta2), fused=True)
        case RMSprop():
            return torch.optim.RMSprop(parameters, settings.lr, settings.alpha)
        case SGD():
            return torch.optim.SGD(parameters, settings.lr, settings.momentum, fused=True)
    raise TypeError(f"no optimiser of torch for {type(settings).__name__}")


def apply_settings(optimizer: torch.optim.Optimizer, settings: Optimizer, factor: float) -> None:
    """Let `optimizer` take its next step with `settings`, the learning rate times `factor`."""
    (group,) = optimizer.param_groups
    group["lr"] = settings.lr * factor
    match settings:
        case Adam():
            group["betas"] = (settings.beta1, settings.beta2)
        case RMSprop():
            group["alpha"] = settings.alpha
        case SGD():
            group["momentum"] = settings.momentum
