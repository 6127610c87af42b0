"""SNGAN: spectral normalization for generative adversarial networks (Miyato 2018, arXiv 1802.05957).

Legend: N samples, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ..networks import dcgan, sngan
from .base import Batch, DataSpec, GanConfig
from .optimizers import Adam
from .spectral import SpectralPair


class SnganSettings(GanConfig):
    """The hinge loss, the standard CNN of table 3, and setting C of table 1 (one discriminator update), but for the
    learning rates: they suit short trainings, in which the generator fell behind with the paper's 2e-4 for both."""

    num_latents: int = Field(default=128, ge=1)
    """Z, the size of the latent vector, standard normal."""
    generator_width: int = Field(default=64, ge=1)
    """Feature maps before the generator's last layer; they double towards the latent, up to eightfold."""
    discriminator_width: int = Field(default=32, ge=1)
    """Feature maps of the discriminator's first layer (64 in the paper); they double towards the score, up to
    eightfold."""
    adam_generator: Adam = Adam(lr=1e-3, beta1=0.5, beta2=0.999)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The discriminator's optimiser."""


class Sngan(SpectralPair):
    """Every weight of the discriminator has a spectral norm of 1, which bounds the discriminator's Lipschitz constant.

    Departs from the paper in the generator's kernels: DCGAN's, whose last layer doubles the side, too.
    """

    Config = SnganSettings
    config: SnganSettings

    def __init__(self, config: SnganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels = data.image_size, data.channels
        self.generator = dcgan.generator(config.num_latents, size, channels, config.generator_width)
        dcgan.initialise(self.generator)
        self.discriminator = sngan.discriminator(size, channels, config.discriminator_width)

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW: Tensor = self.generator(batch.latent(self.config.num_latents))
        return images_NCHW
