"""LSGAN: least squares generative adversarial networks (Mao 2016, arXiv 1611.04076).

Legend: N samples, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

from functools import partial

from pydantic import Field
from torch import Tensor, nn

from ..losses.adversarial import least_squares_discriminator, least_squares_generator
from ..networks import dcgan
from .base import Batch, DataSpec, GanConfig
from .optimizers import Adam
from .pair import AdversarialPair


class LsganSettings(GanConfig):
    """The 0-1 coding (eq. 9); a = -1, b = 1, c = 0 minimises Pearson's chi-squared divergence (eq. 8)."""

    a: float = 0.0
    """The score that the discriminator gives to generated images."""
    b: float = 1.0
    """The score that the discriminator gives to real images."""
    c: float = 1.0
    """The score that the generator wants for its images."""
    num_latents: int = Field(default=100, ge=1)
    """Z, the size of the latent vector, uniform in [-1, 1]; 1024 in the paper, at 112 pixels."""
    generator_width: int = Field(default=64, ge=1)
    """Feature maps before the generator's last layer; they double towards the latent, up to eightfold."""
    discriminator_width: int = Field(default=64, ge=1)
    """Feature maps after the discriminator's first layer; they double towards the score, up to eightfold."""
    adam_generator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The generator's optimiser; 1e-3 in the paper."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The discriminator's optimiser; 1e-3 in the paper."""


class Lsgan(AdversarialPair):
    """Scores are pulled to numbers, so images that are far on the right side of the boundary still give a gradient.

    With DCGAN's networks in place of the paper's deeper ones for 112 pixels.
    """

    Config = LsganSettings
    config: LsganSettings
    needs_power_of_two = True
    logged_score = staticmethod(nn.Identity())

    def __init__(self, config: LsganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        self.generator = dcgan.generator(config.num_latents, data.image_size, data.channels, config.generator_width)
        self.discriminator = dcgan.discriminator(data.image_size, data.channels, config.discriminator_width)
        dcgan.initialise(self)
        self.discriminator_loss = partial(least_squares_discriminator, real_target=config.b, fake_target=config.a)
        self.generator_loss = partial(least_squares_generator, target=config.c)

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW: Tensor = self.generator(batch.latent(self.config.num_latents, "uniform"))
        return images_NCHW
