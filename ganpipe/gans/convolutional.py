"""A generator against one discriminator with DCGAN's networks: what papers share that change the losses alone.

Legend: N samples, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ..networks import dcgan
from .base import Batch, DataSpec, GanConfig
from .optimizers import Adam
from .pair import AdversarialPair


class GeneratorSettings(GanConfig):
    """The settings of DCGAN's generator."""

    num_latents: int = Field(default=100, ge=1)
    """Z, the size of the latent vector."""
    generator_width: int = Field(default=64, ge=1)
    """Feature maps before the generator's last layer; they double towards the latent, up to eightfold."""


class ConvolutionalSettings(GeneratorSettings):
    """DCGAN's values (Radford 2015, arXiv 1511.06434, section 4), but for the widths: 64 as in its authors' code."""

    discriminator_width: int = Field(default=64, ge=1)
    """Feature maps after the discriminator's first layer; they double towards its output, up to eightfold."""
    adam_generator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The discriminator's optimiser."""


class ConvolutionalPair(AdversarialPair):
    """Strided convolutions, batch norm, ReLU in the generator and LeakyReLU in the discriminator."""

    config: GeneratorSettings
    needs_power_of_two = True
    latent: ClassVar[Literal["normal", "uniform"]] = "uniform"
    """Distribution of the latents: standard normal, or uniform in [-1, 1]."""

    def __init__(self, config: GeneratorSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, name = data.image_size, data.channels, self.discriminator_name
        self.generator = dcgan.generator(config.num_latents, size, channels, config.generator_width)
        setattr(self, name, dcgan.discriminator(size, channels, getattr(config, f"{name}_width")))
        dcgan.initialise(self)

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW: Tensor = self.generator(batch.latent(self.config.num_latents, self.latent))
        return images_NCHW
