"""VGSN: fonts from a few glyphs, after the lecture notes' Variational Grid Setting Network (no paper is known).

The notes give its name, its purpose (a font's style is found from some glyphs, and its other characters are made), and
that its code of the style is variational; they give no networks and no losses. Own choices: the networks are DCGAN's;
the discriminator sees a glyph beside the examples of its font, and is told the character; a pixel-wise distance to the
font's true glyph as in pix2pix (Isola 2017, arXiv 1611.07004).

Legend: N samples, E example glyphs, Z size of a style, K characters, C channels, H = W image size.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..errors import GanpipeError
from ..fields import Frames
from ..losses.reconstruction import l1
from ..losses.variational import standard_normal_divergence
from ..networks import dcgan
from ..networks.autoencoder import encoder
from .base import Batch, DataSpec, GanConfig, Losses, Player, Progress
from .optimizers import Adam
from .pair import AdversarialPair


class VgsnSettings(GanConfig):
    """The notes give no values."""

    num_latents: int = Field(default=32, ge=1)
    """Z, the size of a style."""
    encoder_width: int = Field(default=32, ge=1)
    """Feature maps after the encoder's first layer."""
    generator_width: int = Field(default=32, ge=1)
    """Feature maps before the generator's last layer."""
    discriminator_width: int = Field(default=32, ge=1)
    """Feature maps after the discriminator's first layer."""
    reconstruction_weight: float = Field(default=20.0, ge=0)
    """Weight of the mean absolute difference from the font's true glyph."""
    divergence_weight: float = Field(default=1e-3, ge=0)
    """Weight of the divergence of styles from the standard normal distribution."""
    adam_generator: Adam = Adam(lr=1e-3, beta1=0.5, beta2=0.999)
    """The optimiser of encoder and generator."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The discriminator's optimiser."""


class Vgsn(AdversarialPair):
    """An encoder finds the style of example glyphs, as a distribution; the generator draws a character in it."""

    Config = VgsnSettings
    config: VgsnSettings
    needs_power_of_two = True
    augmentations = ()
    fields = ("image", "examples", "label")
    given = ("examples", "label")

    def __init__(self, config: VgsnSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, examples = data.image_size, data.channels, data.fields["examples"]
        assert isinstance(examples, Frames)
        num_examples, num_classes = examples.num_frames * channels, data.num_classes
        self.encoder = encoder(size, num_examples, config.encoder_width, 2 * config.num_latents)
        self.generator = dcgan.generator(config.num_latents + num_classes, size, channels, config.generator_width)
        self.discriminator = dcgan.discriminator(
            size, channels + num_examples, config.discriminator_width, num_outputs=num_classes
        )
        dcgan.initialise(self)

    @classmethod
    def check(cls, config: GanConfig, data: DataSpec) -> None:
        super().check(config, data)
        image, examples = data.image, data.fields["examples"]
        if not isinstance(examples, Frames) or (examples.size, examples.channels) != (image.size, image.channels):
            raise GanpipeError(f"vgsn needs examples as frames of the image's size; got {examples.text}")

    def players(self) -> dict[str, Player]:
        generator = Player([self.encoder, self.generator], self.config.adam_generator, averaged=True)
        return {**super().players(), "generator": generator}

    def _style(self, batch: Batch) -> Tensor:
        mean_NZ, log_variance_NZ = self.encoder(batch["examples"].flatten(1, 2)).chunk(2, dim=1)
        batch.kept["divergence"] = standard_normal_divergence(mean_NZ, log_variance_NZ)
        drawn_NZ: Tensor = mean_NZ + (log_variance_NZ / 2).exp() * batch.latent(self.config.num_latents)
        return drawn_NZ

    def generate(self, batch: Batch) -> Tensor:
        style_NZ = self._style(batch)
        label_NK = F.one_hot(batch["label"], self.data.num_classes).to(style_NZ.dtype)
        images_NCHW: Tensor = self.generator(torch.cat([style_NZ, label_NK], dim=1))
        return images_NCHW

    def discriminate(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        """The logit of the character that the glyph should be, (N,), beside the examples of its font."""
        examples = batch["examples"].flatten(1, 2)
        logits_NK = self.discriminator(torch.cat([images_NCHW.to(examples.dtype), examples], dim=1))
        found_N: Tensor = (logits_NK * F.one_hot(batch["label"], self.data.num_classes)).sum(1)
        return found_N

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        distance = l1(self._generated(batch), batch["image"])
        return {
            **super().generator_losses(batch, progress),
            "reconstruction": self.config.reconstruction_weight * distance,
            "divergence": self.config.divergence_weight * batch.kept["divergence"],
        }
