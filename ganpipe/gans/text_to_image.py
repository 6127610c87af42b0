"""Generative adversarial text to image synthesis (Reed 2016, arXiv 1605.05396).

Legend: N samples, L words, D units of an embedding, Z latent size, C channels, H height, W width.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ..fields import Tokens
from ..losses.adversarial import matching_aware_discriminator, non_saturating
from ..networks import dcgan
from ..networks.words import WordDiscriminator, WordGenerator
from .base import Batch, DataSpec, GanConfig, Losses, Origin, Progress, Shuffled, Stored
from .convolutional import ConvolutionalSettings
from .optimizers import Adam
from .pair import AdversarialPair


class TextToImageSettings(ConvolutionalSettings):
    """Section 5. Latents are standard normal."""

    embedding_width: int = Field(default=128, ge=1)
    """D, units of the embedding of a text; 128 in the paper, after 1,024 of an encoder that was trained before."""
    interpolated_weight: float = Field(default=1.0, ge=0)
    """Weight of the generator's loss for images of words between two texts (equation 5)."""
    adam_generator: Adam = Adam(lr=1e-3, beta1=0.5, beta2=0.999)
    """The generator's optimiser; 2e-4 in the paper, for 600 epochs."""


class TextToImage(AdversarialPair):
    """GAN-INT-CLS: right images with wrong words are false, and the generator also learns between texts.

    Each network learns an encoder of words of its own.
    """

    Config = TextToImageSettings
    config: TextToImageSettings
    needs_power_of_two = True
    fields = ("image", "text", "other_text")
    given = ("text",)
    generator: WordGenerator

    def __init__(self, config: TextToImageSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, words = data.image_size, data.channels, data.fields["text"]
        assert isinstance(words, Tokens)
        sizes = words.num_words, config.embedding_width
        self.generator = WordGenerator(*sizes, config.num_latents, size, channels, config.generator_width)
        self.discriminator = WordDiscriminator(*sizes, size, channels, config.discriminator_width, has_norm=False)
        dcgan.initialise(self)

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        return {"image": Stored(data.main), "text": Stored("text"), "other_text": Shuffled("text")}

    def _latent(self, batch: Batch) -> Tensor:
        return batch.once("z", lambda: batch.latent(self.config.num_latents))

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW: Tensor = self.generator(self._latent(batch), self.generator.encoder(batch["text"]))
        return images_NCHW

    def discriminator_losses_on(self, fake_NCHW: Tensor, batch: Batch) -> Losses:
        real_NCHW = self.augmentation(batch["image"], batch)
        right_ND, wrong_ND = (self.discriminator.encoder(batch[name]) for name in ("text", "other_text"))
        real_N, mismatched_N = self.discriminator(real_NCHW, right_ND), self.discriminator(real_NCHW, wrong_ND)
        fake_N = self.discriminator(self.augmentation(fake_NCHW.to(real_NCHW.dtype), batch), right_ND)
        self.augmentation.observe(real_N, batch)
        for name, found_N in (("real", real_N), ("mismatched", mismatched_N), ("fake", fake_N)):
            batch.observe(f"score_{name}", self.logged_score(found_N))
        return {"adversarial": matching_aware_discriminator(real_N, mismatched_N, fake_N)}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        words_ND = self.discriminator.encoder(batch["text"])
        logits_N = self.discriminator(self.augmentation(self._generated(batch), batch), words_ND)
        losses = {"adversarial": non_saturating(logits_N)}
        if self.config.interpolated_weight:
            losses["interpolated"] = self.config.interpolated_weight * self._interpolated_loss(batch)
        return losses

    def _interpolated_loss(self, batch: Batch) -> Tensor:
        """Equation 5 with beta = 1/2: there is no real image of such words, so the generator alone has this term."""

        def between(network: WordGenerator | WordDiscriminator) -> Tensor:
            return (network.encoder(batch["text"]) + network.encoder(batch["other_text"])) / 2

        made_NCHW = self.generator(self._latent(batch), between(self.generator))
        return non_saturating(self.discriminator(self.augmentation(made_NCHW, batch), between(self.discriminator)))
