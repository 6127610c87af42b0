"""BigGAN: large scale GAN training for high fidelity natural image synthesis (Brock 2018, arXiv 1809.11096).

Legend: N samples, Z latent size, L latents per layer, E size of the class embedding, M feature maps, C channels, H = W
image size.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import torch
from pydantic import Field
from torch import Tensor, nn

from ..losses.penalties import orthogonality
from ..networks.conditional_resnet import Generator, ProjectionDiscriminator, num_blocks
from .base import Batch, DataSpec, GanConfig, Losses, Phase, Player, Progress
from .draws import truncated_normal
from .optimizers import Adam
from .spectral import SpectralPair


class BigganSettings(GanConfig):
    """Section 3 and appendix C, with smaller widths, and learning rates for short trainings (paper: 5e-5 and 2e-4).

    The paper's large batches (2048) are `train.batch_size`; what does not fit into memory is accumulated by
    `train.micro_batch_size`.
    """

    num_latents_per_layer: int = Field(default=20, ge=1)
    """L: the generator's first layer and each block have a chunk of so many latents, standard normal, of their own."""
    embedding_width: int = Field(default=128, ge=1)
    """E, the size of the class embedding that all batch norms of the generator share."""
    generator_width: int = Field(default=16, ge=1)
    """ch, the feature maps of the generator at the image's size (96 in the paper); they double towards the latent."""
    discriminator_width: int = Field(default=16, ge=1)
    """ch, the feature maps of the discriminator's first block (96 in the paper); they double towards the score."""
    num_discriminator_updates: int = Field(default=2, ge=1)
    """Discriminator updates per generator update, each on a fresh batch."""
    orthogonality_weight: float = Field(default=1e-4, ge=0)
    """beta, the weight of the orthogonal regularisation of the generator."""
    adam_generator: Adam = Adam(lr=2e-3, beta1=0.0, beta2=0.999)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=1e-3, beta1=0.0, beta2=0.999)
    """The discriminator's optimiser."""


class Biggan(SpectralPair):
    """SAGAN with latents in every block, one class embedding for all, orthogonal regularisation and truncation."""

    Config = BigganSettings
    config: BigganSettings
    fields = ("image", "label")
    given = ("label",)
    shares_images = False

    def __init__(self, config: BigganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, num_latents = data.image_size, data.channels, config.num_latents_per_layer
        num_conditions = num_latents + config.embedding_width
        self.generator = Generator(
            num_latents, size, channels, config.generator_width, partial(nn.Linear, num_conditions, bias=False)
        )
        self.embedding = nn.Embedding(data.num_classes, config.embedding_width)
        self.discriminator = ProjectionDiscriminator(data.num_classes, size, channels, config.discriminator_width)

    def players(self) -> dict[str, Player]:
        generator = Player([self.generator, self.embedding], self.config.adam_generator, averaged=True)
        return {**super().players(), "generator": generator}

    def latents(self, batch: Batch) -> Tensor:
        """z, (N, Z): standard normal, or truncated at twice the truncation where that is below 1."""
        chunks = 1 + num_blocks(self.data.image_size)
        z_NZ = batch.draws.normal(chunks * self.config.num_latents_per_layer)
        return batch.to_device(z_NZ if batch.truncation >= 1 else truncated_normal(z_NZ, 2 * batch.truncation))

    def generate(self, batch: Batch) -> Tensor:
        first_NL, *others = self.latents(batch).split(self.config.num_latents_per_layer, dim=1)
        class_NE = self.embedding(batch["label"])
        images_NCHW: Tensor = self.generator(first_NL, [torch.cat([z_NL, class_NE], dim=1) for z_NL in others])
        return images_NCHW

    def discriminate(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        scores_N: Tensor = self.discriminator(self.augmentation(images_NCHW, batch), batch["label"])
        return scores_N

    def phases(self, progress: Progress) -> list[Phase]:
        discriminator, generator = super().phases(progress)
        num_updates = self.config.num_discriminator_updates
        return [dataclasses.replace(discriminator, num_updates=num_updates), generator]

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        # The weights before spectral normalisation, as in the authors' code; not the shared embedding.
        weights = [parameter for parameter in self.generator.parameters() if parameter.dim() > 1]
        return {
            **super().generator_losses(batch, progress),
            "orthogonality": self.config.orthogonality_weight * orthogonality(weights),
        }
