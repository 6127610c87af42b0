"""R3GAN: the GAN is dead; long live the GAN! A modern baseline (Huang 2024, arXiv 2501.05441).

Legend: N samples, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from pydantic import Field
from torch import Tensor

from ..losses.adversarial import relativistic_discriminator
from ..losses.penalties import score_gradient, squared_gradient_norm
from ..networks import r3gan
from .base import Batch, DataSpec, GanConfig, Losses, Player, Progress
from .optimizers import Adam, Optimizer
from .pair import AdversarialPair


class R3ganSettings(GanConfig):
    """Appendix: the values for CIFAR-10, with narrower networks."""

    num_latents: int = Field(default=64, ge=1)
    """Z, the size of the latent vector, standard normal."""
    generator_width: int = Field(default=8, ge=1)
    """Feature maps at the largest size; they double towards 4 x 4, up to eightfold. Hundreds in the paper."""
    discriminator_width: int = Field(default=8, ge=1)
    """The same of the discriminator."""
    blocks_per_level: int = Field(default=1, ge=1)
    """Residual blocks at each size; 2 in the paper."""
    expansion: int = Field(default=2, ge=1)
    """How many times wider a block is inside."""
    gamma: float = Field(default=50.0, ge=0)
    """Weight of R1 and R2 at the start; 0.05 in the paper for CIFAR-10, with far larger networks and batches. With too
    little weight the discriminator of a short training is steep, and the generator loses modes."""
    final_gamma: float = Field(default=10.0, ge=0)
    """The same once the schedules have ended; 0.005 in the paper."""
    burn_in: float = Field(default=0.5, gt=0, le=1)
    """Share of the training in which learning rate, beta2 and gamma go from their first to their last values."""
    final_rate: float = Field(default=0.25, gt=0)
    """The learning rate once the schedules have ended, as a share of the first."""
    final_beta2: float = Field(default=0.99, ge=0, lt=1)
    """Adam's beta2 once the schedules have ended."""
    adam_generator: Adam = Adam(lr=5e-3, beta1=0.0, beta2=0.9)
    """The generator's optimiser at the start; 2e-4 in the paper."""
    adam_discriminator: Adam = Adam(lr=5e-3, beta1=0.0, beta2=0.9)
    """The discriminator's optimiser at the start; 2e-4 in the paper."""


class R3gan(AdversarialPair):
    """A relativistic loss of pairs, regularised on real and generated images, and residual networks; no tricks."""

    Config = R3ganSettings
    depends_on_length = True
    config: R3ganSettings
    needs_power_of_two = True
    shares_images = False

    def __init__(self, config: R3ganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, depth = data.image_size, data.channels, (config.blocks_per_level, config.expansion)
        self.generator = r3gan.generator(config.num_latents, size, channels, config.generator_width, *depth)
        self.discriminator = r3gan.discriminator(size, channels, config.discriminator_width, *depth)

    def players(self) -> dict[str, Player]:
        players = {name: dataclasses.replace(p, over_time=self._over_time) for name, p in super().players().items()}
        return players | {"discriminator": dataclasses.replace(players["discriminator"], compiled=False)}

    def _between(self, first: float, last: float, progress: Progress) -> float:
        """From `first` to `last` by half a cosine during the burn-in."""
        passed = min(1.0, progress.fraction / self.config.burn_in)
        return last + (first - last) * (1 + math.cos(math.pi * passed)) / 2

    def _over_time(self, settings: Optimizer, progress: Progress) -> Optimizer:
        assert isinstance(settings, Adam)
        lr = self._between(settings.lr, settings.lr * self.config.final_rate, progress)
        beta2 = self._between(settings.beta2, self.config.final_beta2, progress)
        return settings.model_copy(update={"lr": lr, "beta2": beta2})

    def discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equations 2 and 3: the relativistic loss, R1 and R2."""
        with torch.no_grad():
            fake_NCHW = self._generated(batch)
        real_NCHW = batch[self.fields[0]]
        both_NCHW = self.augmentation(torch.cat([real_NCHW, fake_NCHW.to(real_NCHW.dtype)]), batch).requires_grad_()
        logits = self.discriminator(both_NCHW)
        gradient_NCHW = score_gradient(logits, both_NCHW)
        real_logits, fake_logits = logits.chunk(2)
        self.augmentation.observe(real_logits, batch)
        batch.observe("score_real", real_logits)
        batch.observe("score_fake", fake_logits)
        weight = self._between(self.config.gamma, self.config.final_gamma, progress) / 2
        return {
            "adversarial": relativistic_discriminator(real_logits, fake_logits),
            "r1": weight * squared_gradient_norm(gradient_NCHW[: batch.num_samples]),
            "r2": weight * squared_gradient_norm(gradient_NCHW[batch.num_samples :]),
        }

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """The same loss with real and generated images in each other's place."""
        fake_logits = self.discriminate(self._generated(batch), batch)
        real_logits = self.discriminate(batch[self.fields[0]], batch)
        return {"adversarial": relativistic_discriminator(fake_logits, real_logits)}

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW: Tensor = self.generator(batch.latent(self.config.num_latents))
        return images_NCHW
