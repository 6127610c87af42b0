"""SAGAN: self-attention generative adversarial networks (Zhang 2018, arXiv 1805.08318).

Legend: N samples, Z latent size, M feature maps, C channels, H = W image size.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from ..networks.conditional_resnet import Generator, ProjectionDiscriminator, num_blocks
from .base import Batch, DataSpec, GanConfig
from .optimizers import Adam
from .spectral import SpectralPair


class SaganSettings(GanConfig):
    """Section 5 with smaller widths, and learning rates for short trainings (1e-4 and 4e-4 in the paper, for a million
    updates)."""

    num_latents: int = Field(default=128, ge=1)
    """Z, the size of the latent vector, standard normal."""
    generator_width: int = Field(default=16, ge=1)
    """Feature maps of the generator at the image's size (64 in the authors' code); they double towards the latent."""
    discriminator_width: int = Field(default=16, ge=1)
    """Feature maps of the discriminator's first block (64 in the authors' code); they double towards the score."""
    adam_generator: Adam = Adam(lr=1e-3, beta1=0.0, beta2=0.9)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=2e-3, beta1=0.0, beta2=0.9)
    """The discriminator's optimiser, which learns faster than the generator's (section 4.2)."""


class Sagan(SpectralPair):
    """Self-attention and spectral normalisation in both networks; batch norm and score depend on the class."""

    Config = SaganSettings
    config: SaganSettings
    fields = ("image", "label")
    given = ("label",)
    generator: Generator

    def __init__(self, config: SaganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, num_classes = data.image_size, data.channels, data.num_classes

        def of_each_class(maps: int) -> nn.Embedding:
            """Gains or biases (K, M), alike for all classes at first."""
            table = nn.Embedding(num_classes, maps)
            nn.init.zeros_(table.weight)
            return table

        self.generator = Generator(config.num_latents, size, channels, config.generator_width, of_each_class)
        self.discriminator = ProjectionDiscriminator(num_classes, size, channels, config.discriminator_width)

    def generate(self, batch: Batch) -> Tensor:
        conditions = [batch["label"]] * num_blocks(self.data.image_size)
        images_NCHW: Tensor = self.generator(batch.latent(self.config.num_latents), conditions)
        return images_NCHW

    def discriminate(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        scores_N: Tensor = self.discriminator(self.augmentation(images_NCHW, batch), batch["label"])
        return scores_N
