"""The first GAN (Goodfellow 2014, arXiv 1406.2661) with the lecture notes' networks and settings for MNIST.

Legend: N samples, Z latent size, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from ..losses.adversarial import minimax_generator, non_saturating
from ..networks.mlp import image_discriminator, image_generator
from .base import Batch, DataSpec, GanConfig
from .optimizers import Adam
from .pair import AdversarialPair


class GanSettings(GanConfig):
    """The lecture notes' values: generator 128-1024-1024-784, discriminator 784-256-256-1."""

    num_latents: int = Field(default=128, ge=1)
    """Z, the size of the latent vector."""
    latent: Literal["normal", "uniform"] = "normal"
    """Distribution of the latents: standard normal, or uniform in [-1, 1]."""
    generator_loss: Literal["non_saturating", "minimax"] = "non_saturating"
    """-E[log D(G(z))], whose gradient is strong early in training (section 3), or E[log(1 - D(G(z)))] of equation 1."""
    generator_width: int = Field(default=1024, ge=1)
    """Units of each of the generator's two hidden layers."""
    discriminator_width: int = Field(default=256, ge=1)
    """Units of each of the discriminator's two hidden layers."""
    adam_generator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The discriminator's optimiser."""


class OriginalGan(AdversarialPair):
    """Algorithm 1 with one discriminator update per step."""

    Config = GanSettings
    config: GanSettings
    separate_passes = False

    def __init__(self, config: GanSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        self.generator = image_generator(config.num_latents, [config.generator_width] * 2, data.image_shape)
        self.discriminator = image_discriminator(data.image_shape, [config.discriminator_width] * 2)
        self.generator_loss = {"non_saturating": non_saturating, "minimax": minimax_generator}[config.generator_loss]

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW: Tensor = self.generator(batch.latent(self.config.num_latents, self.config.latent))
        return images_NCHW
