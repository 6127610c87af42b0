"""DCGAN: deep convolutional GAN (Radford 2015, arXiv 1511.06434).

Legend: N samples, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ..networks import dcgan as networks
from .base import Batch, DataSpec, GanConfig
from .optimizers import Adam
from .pair import AdversarialPair


class DcganSettings(GanConfig):
    """The paper's values (section 4), except for the widths: 64 as in the authors' code; figure 1 has 128."""

    num_latents: int = Field(default=100, ge=1)
    """Z, the size of the latent vector, uniform in [-1, 1]."""
    generator_width: int = Field(default=64, ge=1)
    """Feature maps before the generator's last layer; they double towards the latent, up to eightfold."""
    discriminator_width: int = Field(default=64, ge=1)
    """Feature maps after the discriminator's first layer; they double towards the logit, up to eightfold."""
    adam_generator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The discriminator's optimiser."""


class Dcgan(AdversarialPair):
    """Strided convolutions, batch norm, ReLU in the generator and LeakyReLU in the discriminator.

    Real and generated images pass the discriminator in two passes, each with the statistics of its own kind, as in the
    authors' code.
    """

    Config = DcganSettings
    config: DcganSettings
    needs_power_of_two = True

    def __init__(self, config: DcganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        self.generator = networks.generator(config.num_latents, data.image_size, data.channels, config.generator_width)
        self.discriminator = networks.discriminator(data.image_size, data.channels, config.discriminator_width)
        networks.initialise(self)

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW: Tensor = self.generator(batch.latent(self.config.num_latents, "uniform"))
        return images_NCHW
