"""A critic whose weights are clipped after each update (Arjovsky 2017, arXiv 1701.07875, algorithm 1).

Legend: N samples, C channels, H = W image size.
"""

from __future__ import annotations

from functools import partial

from pydantic import Field
from torch import nn

from ..losses.adversarial import wasserstein_generator
from ..losses.penalties import clip_weights
from .base import Phase, Player, Progress, decaying
from .convolutional import ConvolutionalPair, GeneratorSettings
from .optimizers import RMSprop


class ClippedSettings(GeneratorSettings):
    """Algorithm 1's values, except for bounds, rates and the number of critic updates.

    What counts for the critic is its rate beside `clip`. The paper's is 1/200; at ten times that, all its weights are
    at an end after twenty updates, and it tells little. The paper's own bound, 0.01, cuts 62 % of DCGAN's first
    weights, and then batch norm's epsilon, 1e-5, is larger than the variances that it divides by (section `wgan` of
    docs/gans.md).
    """

    critic_width: int = Field(default=64, ge=1)
    """Feature maps after the critic's first layer; they double towards the score, up to eightfold."""
    clip: float = Field(default=0.03, gt=0)
    """c: after each update the critic's weights are put into [-c, c]; 0.01 in the paper."""
    num_critic_updates: int = Field(default=2, ge=1)
    """n_critic: critic updates per generator update, each on a fresh batch; 5 in the paper."""
    decay_from: float = Field(default=0.6, ge=0, le=1)
    """Share of the training after which learning rates fall linearly, to zero at its end. 1: they do not."""
    rmsprop_generator: RMSprop = RMSprop(lr=1e-3)
    """The generator's optimiser; 5e-5 in the paper, for many more updates."""
    rmsprop_critic: RMSprop = RMSprop(lr=2e-4)
    """The critic's optimiser; 5e-5 in the paper."""


class ClippedPair(ConvolutionalPair):
    """DCGAN's networks, the discriminator as a critic that is Lipschitz because its weights are bounded."""

    config: ClippedSettings
    depends_on_length = True
    latent = "normal"
    discriminator_name = "critic"
    augmentations = ("diffaugment",)
    shares_images = False
    generator_loss = staticmethod(wasserstein_generator)
    logged_score = staticmethod(nn.Identity())

    def players(self) -> dict[str, Player]:
        return decaying(super().players(), self.config.decay_from)

    def phases(self, progress: Progress) -> list[Phase]:
        critic: nn.Module = self.critic  # type: ignore[assignment]
        clip = partial(clip_weights, critic, self.config.clip)
        return [
            Phase("critic", self.discriminator_losses, self.config.num_critic_updates, after_update=clip),
            Phase("generator", self.generator_losses),
        ]
