"""Settings of the optimisers that a player may have. `training/optimizers.py` makes torch's optimisers of them."""

from __future__ import annotations

from pydantic import Field

from ..section import Section


class Optimizer(Section):
    """What every optimiser has. A GAN's settings name a player's by kind: `adam_generator`, `rmsprop_critic`."""

    lr: float = Field(gt=0)
    """Learning rate; `train.schedule` multiplies it."""


class Adam(Optimizer):
    """Adam's settings for one player (Kingma & Ba 2014, arXiv 1412.6980)."""

    beta1: float = Field(ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(ge=0, lt=1)
    """Decay of the second moment."""


class RMSprop(Optimizer):
    """RMSprop's settings for one player (Tieleman & Hinton 2012, lecture 6.5), as WGAN uses it."""

    alpha: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the mean of squared gradients."""


class SGD(Optimizer):
    """Settings of stochastic gradient descent for one player."""

    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the accumulated gradient. 0: none."""


KINDS: dict[str, type[Optimizer]] = {"adam": Adam, "rmsprop": RMSprop, "sgd": SGD}
"""The first part of a setting's name -> the optimiser."""
