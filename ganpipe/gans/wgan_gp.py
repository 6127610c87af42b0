"""WGAN-GP: improved training of Wasserstein GANs (Gulrajani 2017, arXiv 1704.00028).

Legend: N samples, Z latent size, C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from ..losses.adversarial import wasserstein_critic, wasserstein_generator
from ..losses.penalties import gradient_penalty, input_gradient
from ..networks import dcgan, mlp
from .base import Batch, DataSpec, GanConfig, Losses, Phase, Player, Progress
from .optimizers import Adam
from .pair import AdversarialPair
from .spec import require_power_of_two


class WganGpSettings(GanConfig):
    """Algorithm 1's values."""

    architecture: Literal["convolutional", "mlp"] = "mlp"
    """DCGAN's networks (without batch norm in the critic), or fully connected ones."""
    num_latents: int = Field(default=128, ge=1)
    """Z, the size of the latent vector, standard normal."""
    generator_width: int = Field(default=512, ge=1)
    """mlp: units of each of the three hidden layers (512 in the paper); convolutional: maps before the last layer."""
    critic_width: int = Field(default=512, ge=1)
    """mlp: units of each of the three hidden layers; convolutional: feature maps after the first layer."""
    num_critic_updates: int = Field(default=5, ge=1)
    """n_critic: critic updates per generator update, each on a fresh batch."""
    penalty_weight: float = Field(default=10.0, ge=0)
    """lambda, the weight of the gradient penalty."""
    adam_generator: Adam = Adam(lr=1e-4, beta1=0.0, beta2=0.9)
    """The generator's optimiser."""
    adam_critic: Adam = Adam(lr=1e-4, beta1=0.0, beta2=0.9)
    """The critic's optimiser."""


class WganGp(AdversarialPair):
    """A critic kept near 1-Lipschitz by a penalty on its gradient between real and generated images."""

    Config = WganGpSettings
    config: WganGpSettings
    discriminator_name = "critic"
    augmentations = ("diffaugment",)
    separate_passes = False
    shares_images = False
    discriminator_loss = staticmethod(wasserstein_critic)
    generator_loss = staticmethod(wasserstein_generator)
    logged_score = staticmethod(nn.Identity())

    def __init__(self, config: WganGpSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, width = data.image_size, data.channels, config.critic_width
        if config.architecture == "mlp":
            self.generator = mlp.image_generator(config.num_latents, [config.generator_width] * 3, data.image_shape)
            self.critic = mlp.image_discriminator(data.image_shape, [width] * 3)
        else:
            self.generator = dcgan.generator(config.num_latents, size, channels, config.generator_width)
            self.critic = dcgan.discriminator(size, channels, width, batch_norm=False)

    @classmethod
    def check(cls, config: GanConfig, data: DataSpec) -> None:
        super().check(config, data)
        assert isinstance(config, WganGpSettings)
        if config.architecture == "convolutional":
            require_power_of_two(data.image_size, "wgan_gp with architecture: convolutional")

    def players(self) -> dict[str, Player]:
        players = super().players()
        if self.config.architecture == "convolutional":
            players["critic"] = dataclasses.replace(players["critic"], compiled=False)
        return players

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW: Tensor = self.generator(batch.latent(self.config.num_latents))
        return images_NCHW

    def phases(self, progress: Progress) -> list[Phase]:
        return [
            Phase("critic", self.discriminator_losses, num_updates=self.config.num_critic_updates),
            Phase("generator", self.generator_losses),
        ]

    def discriminator_losses_on(self, fake_NCHW: Tensor, batch: Batch) -> Losses:
        losses = super().discriminator_losses_on(fake_NCHW, batch)
        # Both give the same gradient; that of a fully connected critic has a closed form.
        gradient = mlp.input_gradient if self.config.architecture == "mlp" else input_gradient
        real_NCHW, fake_NCHW = self.augmentation(batch["image"], batch), self.augmentation(fake_NCHW, batch)
        penalty = gradient_penalty(partial(gradient, self.critic), real_NCHW, fake_NCHW, batch.mixing())
        return {
            **losses,
            "gradient_penalty": self.config.penalty_weight * penalty,
        }
