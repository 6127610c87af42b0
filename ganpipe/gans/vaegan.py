"""VAE/GAN: autoencoding beyond pixels using a learned similarity metric (Larsen 2015, arXiv 1512.09300).

Legend: N samples, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from ..losses.adversarial import discriminator_cross_entropy, non_saturating
from ..losses.variational import standard_normal_divergence, unit_gaussian_likelihood
from ..networks import dcgan
from ..networks.autoencoder import FeatureDiscriminator, encoder
from .autoencoding import AutoEncodingGan
from .base import Batch, DataSpec, GanConfig, Losses, Phase, Progress
from .optimizers import Adam


class VaeganSettings(GanConfig):
    """DCGAN's networks and optimisers in place of the paper's (table 1; RMSprop with a learning rate of 3e-4)."""

    num_latents: int = Field(default=32, ge=1)
    """Z, the size of the latent vector, standard normal; 128 in the authors' code."""
    encoder_width: int = Field(default=32, ge=1)
    """Feature maps after the encoder's first layer; 64 in the paper."""
    generator_width: int = Field(default=32, ge=1)
    """Feature maps before the generator's last layer; 32 in the paper."""
    discriminator_width: int = Field(default=32, ge=1)
    """Feature maps after the discriminator's first layer; 32 in the paper."""
    likelihood_weight: float = Field(default=3e-4, ge=0)
    """gamma, the generator's weight of the likelihood of reconstructions beside the adversarial game. The likelihood is
    a sum over feature maps, so larger images need a smaller weight; 1e-6 in the authors' code, at 64 pixels."""
    adam_encoder: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The encoder's optimiser."""
    adam_generator: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The discriminator's optimiser."""


class Vaegan(AutoEncodingGan):
    """A variational auto-encoder that compares images by an inner layer of a discriminator; its decoder generates.

    Algorithm 1, with one update after the other. The generator minimises -log D instead of log(1 - D), as usual.
    Augmentation stands before the adversarial game only: features of reconstructions are compared with features of the
    images themselves.
    """

    Config = VaeganSettings
    config: VaeganSettings
    augmentations = ("diffaugment", "ada")

    def __init__(self, config: VaeganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels = data.image_size, data.channels
        self.encoder = encoder(size, channels, config.encoder_width, 2 * config.num_latents)
        self.generator = dcgan.generator(config.num_latents, size, channels, config.generator_width)
        self.discriminator = FeatureDiscriminator(size, channels, config.discriminator_width)
        dcgan.initialise(self)

    def phases(self, progress: Progress) -> list[Phase]:
        return [
            Phase("discriminator", self.discriminator_losses),
            Phase("generator", self.generator_losses, shares_batch=True),
            Phase("encoder", self.encoder_losses, shares_batch=True),
        ]

    def _posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latents of the batch's images, each (N, Z)."""
        mean_NZ, log_variance_NZ = batch.once("posterior", lambda: self.encoder(batch["image"])).chunk(2, dim=1)
        return mean_NZ, log_variance_NZ

    def latents(self, batch: Batch) -> tuple[Tensor, Tensor]:
        mean_NZ, log_variance_NZ = self._posterior(batch)
        noise_NZ, prior_NZ = batch.once("noise", lambda: batch.latent(2 * self.config.num_latents)).chunk(2, dim=1)
        return mean_NZ + (log_variance_NZ / 2).exp() * noise_NZ, prior_NZ

    def encode(self, images_NCHW: Tensor) -> Tensor:
        mean_NZ: Tensor = self.encoder(images_NCHW).chunk(2, dim=1)[0]
        return mean_NZ

    def _likelihood(self, batch: Batch, features: Tensor) -> Tensor:
        """L_llike of equation 8: how badly the discriminator's features of reconstructions fit those of the images."""
        with torch.no_grad():
            wanted = batch.once("features", lambda: self.discriminator(batch["image"])[0])
        return unit_gaussian_likelihood(wanted, features)

    def _logits(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        """The discriminator's logits for augmented images, (N,)."""
        logits_N: Tensor = self.discriminator(self.augmentation(images_NCHW, batch))[1]
        return logits_N

    def discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """-L_GAN: real images against samples from the prior and against reconstructions."""
        logits = [self._logits(images.detach(), batch) for images in (batch["image"], *self.images(batch))]
        real_N, reconstructed_N, sampled_N = logits
        self.augmentation.observe(real_N, batch)
        self.observe_scores(batch, real_N, reconstructed_N, sampled_N)
        return {
            "adversarial": discriminator_cross_entropy(real_N, sampled_N),
            "reconstructed": non_saturating(-reconstructed_N),  # -log(1 - D)
        }

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """gamma L_llike - L_GAN."""
        reconstructed_NCHW, sampled_NCHW = self.images(batch)
        features, reconstructed_N = self.discriminator(reconstructed_NCHW)
        if self.augmentation.is_active:
            reconstructed_N = self._logits(reconstructed_NCHW, batch)
        return {
            "likelihood": self.config.likelihood_weight * self._likelihood(batch, features),
            "adversarial": non_saturating(self._logits(sampled_NCHW, batch)),
            "reconstructed": non_saturating(reconstructed_N),
        }

    def encoder_losses(self, batch: Batch, progress: Progress) -> Losses:
        """L_prior + L_llike."""
        features, _ = self.discriminator(self.generator(self.latents(batch)[0]))
        return {
            "prior": standard_normal_divergence(*self._posterior(batch)),
            "likelihood": self._likelihood(batch, features),
        }

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        images_NCHW: Tensor = self.generator(conditions.latent(self.config.num_latents))
        return images_NCHW
