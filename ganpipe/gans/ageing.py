"""Age progression by a conditional adversarial auto-encoder (CAAE; Zhang 2017, arXiv 1702.08423).

Legend: N samples, Z latent size, K ages, C channels, H = W image size.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..losses.adversarial import discriminator_cross_entropy, non_saturating
from ..losses.reconstruction import squared, total_variation
from ..networks import dcgan
from ..networks.autoencoder import encoder
from ..networks.mlp import mlp
from .base import Batch, DataSpec, Gan, GanConfig, Losses, Origin, Phase, Player, Progress
from .optimizers import Adam
from .relabelled import origins_with_wanted


class AgeingSettings(GanConfig):
    """Section 3, in smaller widths."""

    num_latents: int = Field(default=64, ge=1)
    """Z, the size of the latent vector, uniform in [-1, 1]: who it is. 50 in the paper."""
    encoder_width: int = Field(default=32, ge=1)
    """Feature maps after the encoder's first layer; 64 in the paper."""
    generator_width: int = Field(default=32, ge=1)
    """Feature maps before the generator's last layer; 64 in the paper."""
    discriminator_width: int = Field(default=32, ge=1)
    """Feature maps after the image discriminator's first layer; 16 in the paper."""
    code_width: int = Field(default=64, ge=1)
    """Units of the code discriminator's hidden layers; 64, 32 and 16 in the paper."""
    reconstruction_weight: float = Field(default=20.0, ge=0)
    """lambda, the weight of the squared error of an image made again at its own age."""
    smoothness_weight: float = Field(default=0.1, ge=0)
    """gamma, the weight of the total variation of what is made at another age."""
    identity_weight: float = Field(default=1.0, ge=0)
    """Weight of the squared distance between a person's latents before and after, which must not depend on the age. Not
    in the paper."""
    adam_encoder: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The encoder's optimiser; 2e-4 in the paper."""
    adam_generator: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The generator's optimiser; 2e-4 in the paper."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The image discriminator's optimiser."""
    adam_code_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The code discriminator's optimiser."""


class Ageing(Gan):
    """An encoder finds who is shown, and a generator shows this person at any of the dataset's classes, which are ages
    in their order.

    A class enters as K - 1 steps, of which the first `age` are 1 and the others -1: neighbours are alike, as ages are.
    """

    Config = AgeingSettings
    config: AgeingSettings
    needs_power_of_two = True
    augmentations = ("diffaugment",)
    fields = ("image", "age", "label")
    given = ("image", "age")
    has_latents = False

    def __init__(self, config: AgeingSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, num_steps = data.image_size, data.channels, data.num_classes - 1
        latents = encoder(size, channels, config.encoder_width, config.num_latents)
        self.encoder = nn.Sequential(latents, nn.Tanh())
        self.generator = dcgan.generator(config.num_latents + num_steps, size, channels, config.generator_width)
        self.discriminator = dcgan.discriminator(size, channels + num_steps, config.discriminator_width)
        self.code_discriminator = mlp([config.num_latents, config.code_width, config.code_width, 1], nn.ReLU)
        dcgan.initialise(self)

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        return origins_with_wanted(data, "age")

    def players(self) -> dict[str, Player]:
        return {
            name: Player([getattr(self, name)], self.config.optimizer_of(name), name in ("encoder", "generator"))
            for name in self.config.players
        }

    def phases(self, progress: Progress) -> list[Phase]:
        return [
            Phase("code_discriminator", self.code_discriminator_losses),
            Phase("discriminator", self.discriminator_losses, shares_batch=True),
            Phase("generator", self.generator_losses, shares_batch=True),
            Phase("encoder", self.encoder_losses, shares_batch=True),
        ]

    def _steps(self, age_N: Tensor, like: Tensor) -> Tensor:
        """The class as S = K - 1 steps, (N, S)."""
        steps_KS = 2 * torch.ones(self.data.num_classes, self.data.num_classes - 1).tril(-1) - 1
        return F.embedding(age_N, steps_KS.to(age_N.device, like.dtype, non_blocking=True))

    def _shown(self, z_NZ: Tensor, age_N: Tensor) -> Tensor:
        """People at these ages, (N, C, H, W)."""
        images_NCHW: Tensor = self.generator(torch.cat([z_NZ, self._steps(age_N, z_NZ)], dim=1))
        return images_NCHW

    def _latents(self, batch: Batch) -> Tensor:
        return batch.once("latents", lambda: self.encoder(batch["image"]))

    def _aged(self, batch: Batch) -> Tensor:
        """The batch's people at the ages that they shall have."""
        return batch.once("aged", lambda: self._shown(self._latents(batch), batch["age"]))

    def _logits(self, images_NCHW: Tensor, age_N: Tensor, batch: Batch) -> Tensor:
        images_NCHW = self.augmentation(images_NCHW, batch)
        steps_NKHW = self._steps(age_N, images_NCHW)[:, :, None, None].expand(-1, -1, *images_NCHW.shape[2:])
        logits_N: Tensor = self.discriminator(torch.cat([images_NCHW, steps_NKHW], dim=1))
        return logits_N

    def code_discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 2: latents from the prior are real, those of images are not."""
        prior_NZ = batch.latent(self.config.num_latents, "uniform")
        codes_NZ = self._latents(batch).detach()
        return {
            "code": discriminator_cross_entropy(self.code_discriminator(prior_NZ), self.code_discriminator(codes_NZ))
        }

    def discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 3."""
        real_N = self._logits(batch["image"], batch["label"], batch)
        fake_N = self._logits(self._aged(batch).detach().to(batch["image"].dtype), batch["age"], batch)
        batch.observe("score_real", torch.sigmoid(real_N))
        batch.observe("score_fake", torch.sigmoid(fake_N))
        return {"adversarial": discriminator_cross_entropy(real_N, fake_N)}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 4, the generator's part."""
        latents_NZ, aged_NCHW = self._latents(batch).detach(), self._aged(batch)
        distance = squared(self._shown(latents_NZ, batch["label"]), batch["image"])
        return {
            "adversarial": non_saturating(self._logits(aged_NCHW, batch["age"], batch)),
            "reconstruction": self.config.reconstruction_weight * distance,
            "smoothness": self.config.smoothness_weight * total_variation(aged_NCHW),
            "identity": self.config.identity_weight * squared(self.encoder(aged_NCHW), latents_NZ),
        }

    def encoder_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 4, the encoder's part."""
        z_NZ = self._latents(batch)
        again_NCHW = self._shown(z_NZ, batch["label"])
        return {
            "code": non_saturating(self.code_discriminator(z_NZ)),
            "reconstruction": self.config.reconstruction_weight * squared(again_NCHW, batch["image"]),
        }

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        return self._shown(self.encoder(conditions["image"]), conditions["age"])
