"""WGAN: Wasserstein GAN with weight clipping (Arjovsky 2017, arXiv 1701.07875).

Legend: N samples, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

from functools import partial

from pydantic import Field
from torch import Tensor, nn

from ..losses.adversarial import wasserstein_critic, wasserstein_generator
from ..losses.penalties import clip_weights
from ..networks import dcgan
from .base import Batch, DataSpec, GanConfig, Losses, Phase, Progress
from .optimizers import RMSprop
from .pair import AdversarialPair


class WganSettings(GanConfig):
    """Algorithm 1's values, except for the learning rates."""

    clip: float = Field(default=0.01, gt=0)
    """c: after each update the critic's weights are put into [-c, c]."""
    num_critic_updates: int = Field(default=5, ge=1)
    """n_critic: critic updates per generator update, each on a fresh batch."""
    num_latents: int = Field(default=100, ge=1)
    """Z, the size of the latent vector, standard normal."""
    generator_width: int = Field(default=64, ge=1)
    """Feature maps before the generator's last layer; they double towards the latent, up to eightfold."""
    critic_width: int = Field(default=64, ge=1)
    """Feature maps after the critic's first layer; they double towards the score, up to eightfold."""
    rmsprop_generator: RMSprop = RMSprop(lr=5e-4)
    """The generator's optimiser; 5e-5 in the paper, for many more updates."""
    rmsprop_critic: RMSprop = RMSprop(lr=5e-4)
    """The critic's optimiser; 5e-5 in the paper."""


class Wgan(AdversarialPair):
    """A critic that is Lipschitz because its weights are bounded; its loss estimates the Wasserstein distance."""

    Config = WganSettings
    config: WganSettings
    needs_power_of_two = True
    discriminator_name = "critic"
    augmentations = ("diffaugment",)
    shares_images = False
    discriminator_loss = staticmethod(wasserstein_critic)
    generator_loss = staticmethod(wasserstein_generator)
    logged_score = staticmethod(nn.Identity())

    def __init__(self, config: WganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        self.generator = dcgan.generator(config.num_latents, data.image_size, data.channels, config.generator_width)
        self.critic = dcgan.discriminator(data.image_size, data.channels, config.critic_width)
        dcgan.initialise(self)

    def phases(self, progress: Progress) -> list[Phase]:
        clip, num_updates = partial(clip_weights, self.critic, self.config.clip), self.config.num_critic_updates
        return [
            Phase("critic", self.discriminator_losses, num_updates, after_update=clip),
            Phase("generator", self.generator_losses),
        ]

    def discriminator_losses_on(self, fake_NCHW: Tensor, batch: Batch) -> Losses:
        losses = super().discriminator_losses_on(fake_NCHW, batch)
        # Up to the critic's Lipschitz constant (section 3): the curve that falls as the samples get better.
        batch.observe("distance_estimate", -losses["adversarial"])
        return losses

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW: Tensor = self.generator(batch.latent(self.config.num_latents))
        return images_NCHW
