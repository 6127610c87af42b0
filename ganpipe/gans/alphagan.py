"""alpha-GAN: variational approaches for auto-encoding GANs (Rosca 2017, arXiv 1706.04987).

Legend: N samples, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from ..losses.adversarial import discriminator_cross_entropy
from ..losses.reconstruction import l1
from ..losses.variational import log_ratio
from ..networks import dcgan, mlp
from ..networks.autoencoder import encoder
from .autoencoding import AutoEncodingGan
from .base import Batch, DataSpec, GanConfig, Losses, Phase, Progress
from .optimizers import Adam


class AlphaganSettings(GanConfig):
    """DCGAN's networks, as in the paper, and a fully connected code discriminator."""

    num_latents: int = Field(default=32, ge=1)
    """Z, the size of the latent vector, standard normal."""
    encoder_width: int = Field(default=32, ge=1)
    """Feature maps after the encoder's first layer; 64 in DCGAN."""
    generator_width: int = Field(default=32, ge=1)
    """Feature maps before the generator's last layer; 64 in DCGAN."""
    discriminator_width: int = Field(default=32, ge=1)
    """Feature maps after the discriminator's first layer; 64 in DCGAN."""
    code_width: int = Field(default=750, ge=1)
    """Units of each of the code discriminator's hidden layers."""
    reconstruction_weight: float = Field(default=10.0, ge=0)
    """lambda, the weight of the mean absolute difference between images and their reconstructions."""
    adam_encoder: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The encoder's optimiser."""
    adam_generator: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The discriminator's optimiser."""
    adam_code_discriminator: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The code discriminator's optimiser."""


class Alphagan(AutoEncodingGan):
    """An auto-encoder whose images and codes both have a discriminator; nothing has to be a density.

    Algorithm 1 with the discriminators' updates first. Its first version exchanged the two terms of the code
    discriminator's loss; here C(z) is the probability that a code is from the prior. The encoder draws no noise.
    """

    Config = AlphaganSettings
    config: AlphaganSettings
    augmentations = ("diffaugment", "ada")

    def __init__(self, config: AlphaganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels = data.image_size, data.channels
        self.encoder = encoder(size, channels, config.encoder_width, config.num_latents)
        self.generator = dcgan.generator(config.num_latents, size, channels, config.generator_width)
        self.discriminator = dcgan.discriminator(size, channels, config.discriminator_width)
        dcgan.initialise(self)
        code_sizes = [config.num_latents, *[config.code_width] * 3, 1]
        self.code_discriminator = nn.Sequential(*mlp.mlp(code_sizes, lambda: nn.LeakyReLU(0.2)), nn.Flatten(0))

    def phases(self, progress: Progress) -> list[Phase]:
        return [
            Phase("discriminator", self.discriminator_losses),
            Phase("code_discriminator", self.code_discriminator_losses, shares_batch=True),
            Phase("generator", self.generator_losses, shares_batch=True),
            Phase("encoder", self.encoder_losses, shares_batch=True),
        ]

    def latents(self, batch: Batch) -> tuple[Tensor, Tensor]:
        codes_NZ = batch.once("codes", lambda: self.encode(batch["image"]))
        return codes_NZ, batch.once("prior", lambda: batch.latent(self.config.num_latents))

    def encode(self, images_NCHW: Tensor) -> Tensor:
        codes_NZ: Tensor = self.encoder(images_NCHW)
        return codes_NZ

    def _logits(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        logits_N: Tensor = self.discriminator(self.augmentation(images_NCHW, batch))
        return logits_N

    def discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """-2 log D(x) - log(1 - D(reconstruction)) - log(1 - D(sample))."""
        images = (batch["image"], *self.images(batch))
        real_N, reconstructed_N, sampled_N = (self._logits(images_NCHW.detach(), batch) for images_NCHW in images)
        self.augmentation.observe(real_N, batch)
        self.observe_scores(batch, real_N, reconstructed_N, sampled_N)
        return {
            "adversarial": discriminator_cross_entropy(real_N, sampled_N),
            "reconstructed": discriminator_cross_entropy(real_N, reconstructed_N),
        }

    def code_discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """-log C(z) - log(1 - C(code))."""
        codes_N, prior_N = (self.code_discriminator(latents.detach()) for latents in self.latents(batch))
        return {"adversarial": discriminator_cross_entropy(prior_N, codes_N)}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """lambda |x - reconstruction|, and -log D + log(1 - D) of reconstructions and of samples."""
        reconstructed_NCHW, sampled_NCHW = self.images(batch)
        return {
            "l1": self.config.reconstruction_weight * l1(reconstructed_NCHW, batch["image"]),
            "adversarial": log_ratio(self._logits(sampled_NCHW, batch)),
            "reconstructed": log_ratio(self._logits(reconstructed_NCHW, batch)),
        }

    def encoder_losses(self, batch: Batch, progress: Progress) -> Losses:
        """lambda |x - reconstruction|, and -log C + log(1 - C) of the codes."""
        codes_NZ, _ = self.latents(batch)
        return {
            "l1": self.config.reconstruction_weight * l1(self.generator(codes_NZ), batch["image"]),
            "code": log_ratio(self.code_discriminator(codes_NZ)),
        }

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        images_NCHW: Tensor = self.generator(conditions.latent(self.config.num_latents))
        return images_NCHW
