"""EBGAN: energy-based generative adversarial networks (Zhao 2016, arXiv 1609.03126).

Legend: N samples, Z latent size, D code size, C channels, H = W image size.
"""

from __future__ import annotations

import functools

from pydantic import Field
from torch import Tensor, nn

from ..losses.energy import energy_generator, margin_discriminator, pulling_away, reconstruction_energy
from ..networks import dcgan
from ..networks.autoencoder import AutoEncoder
from .base import Batch, DataSpec, GanConfig, Losses, Player, Progress, decaying
from .optimizers import Adam
from .pair import AdversarialPair


class EbganSettings(GanConfig):
    """Convolutional networks, as the paper has for photographs, with a dense code. Learning rates that are high and
    fall at the end, and a short memory of squared gradients, make the most of a short training (docs/recipes.md)."""

    num_latents: int = Field(default=100, ge=1)
    """Z, the size of the latent vector, standard normal."""
    num_codes: int = Field(default=64, ge=1)
    """D, the size of the code between the discriminator's encoder and decoder."""
    generator_width: int = Field(default=64, ge=1)
    """Feature maps before the generator's last layer; they double towards the latent, up to eightfold."""
    discriminator_width: int = Field(default=32, ge=1)
    """Feature maps at the image side of the discriminator's encoder and decoder; 64 in the paper."""
    margin: float = Field(default=0.05, gt=0)
    """m: above this energy a generated image does not count for the discriminator. It is a mean squared error here; the
    paper's margins, 10 for MNIST and 20 to 80 for photographs, belong to an energy that is no mean over pixels."""
    repelling_weight: float = Field(default=0.1, ge=0)
    """Weight of the repelling regulariser f_PT. 0: none."""
    decay_from: float = Field(default=0.6, ge=0, le=1)
    """Share of the training after which learning rates fall linearly, to zero at its end. 1: they do not."""
    adam_generator: Adam = Adam(lr=2e-3, beta1=0.5, beta2=0.99)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=6e-4, beta1=0.5, beta2=0.99)
    """The discriminator's optimiser."""


class Ebgan(AdversarialPair):
    """The discriminator is an auto-encoder; the energy of an image is the error of its reconstruction.

    Here score_real and score_fake are energies: a high value means "not real". The repelling regulariser compares the
    samples of a batch. With several workers or micro-batches, each share has a term of its own; what is minimised is
    the mean over shares.
    """

    Config = EbganSettings
    depends_on_length = True
    config: EbganSettings
    needs_power_of_two = True
    augmentations = ("diffaugment",)  # an energy has no sign
    generator_loss = staticmethod(energy_generator)
    logged_score = staticmethod(nn.Identity())

    def __init__(self, config: EbganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels = data.image_size, data.channels
        self.generator = dcgan.generator(config.num_latents, size, channels, config.generator_width)
        self.discriminator = AutoEncoder(size, channels, config.discriminator_width, config.num_codes)
        self.discriminator_loss = functools.partial(margin_discriminator, margin=config.margin)
        dcgan.initialise(self)

    def players(self) -> dict[str, Player]:
        return decaying(super().players(), self.config.decay_from)

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW: Tensor = self.generator(batch.latent(self.config.num_latents))
        return images_NCHW

    def discriminate(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        seen_NCHW = self.augmentation(images_NCHW, batch)
        return reconstruction_energy(seen_NCHW, self.discriminator(seen_NCHW)[0])

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 2, and the repelling regulariser (equation 4) on the codes of the generated images."""
        images_NCHW = self.augmentation(self._generated(batch), batch)
        reconstructions_NCHW, codes_ND = self.discriminator(images_NCHW)
        return {
            "adversarial": self.generator_loss(reconstruction_energy(images_NCHW, reconstructions_NCHW)),
            "repelling": self.config.repelling_weight * pulling_away(codes_ND),
        }
