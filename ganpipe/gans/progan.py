"""ProGAN: progressive growing of GANs for improved quality, stability and variation (Karras 2017, arXiv 1710.10196).

Legend: N samples, Z latent size, C channels, H height, W width.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ..losses.adversarial import wasserstein_critic, wasserstein_generator, wide
from ..losses.penalties import gradient_penalty, input_gradient
from ..networks import progan
from .base import Batch, DataSpec, Gan, GanConfig, Losses, Phase, Player, Progress
from .optimizers import Adam


class ProganSettings(GanConfig):
    """Section 6 and appendix A."""

    num_latents: int = Field(default=128, ge=1)
    """Z, the size of the latent vector; 512 in the paper."""
    generator_width: int = Field(default=16, ge=1)
    """Feature maps at the largest size; smaller sizes have up to 8 times as many (512 in the paper, at 1024 pixels)."""
    critic_width: int = Field(default=16, ge=1)
    """The same of the critic."""
    growing: float = Field(default=0.25, ge=0, le=1)
    """Share of the training in which the networks grow, equally long at each size; then all sizes are trained. A short
    training needs most of its time at the full size (FID on MNIST after 94,000 images: 392 with a half and 1e-3; with a
    quarter and 1e-2, after 54,000 images, 79)."""
    fading: float = Field(default=0.5, gt=0, le=1)
    """Share of a size's time in which it is faded in."""
    penalty_weight: float = Field(default=10.0, ge=0)
    """lambda, the weight of the gradient penalty."""
    drift_weight: float = Field(default=1e-3, ge=0)
    """Weight of the squared score of real images, which keeps scores near zero."""
    adam_generator: Adam = Adam(lr=1e-2, beta1=0.0, beta2=0.99)
    """The generator's optimiser; 1e-3 in the paper, for days."""
    adam_critic: Adam = Adam(lr=1e-2, beta1=0.0, beta2=0.99)
    """The critic's optimiser; 1e-3 in the paper."""


class Progan(Gan):
    """Both networks begin at 4 x 4 pixels; each larger size is faded in, and begins with fresh optimisers."""

    Config = ProganSettings
    depends_on_length = True
    config: ProganSettings
    needs_power_of_two = True
    augmentations = ("diffaugment",)

    def __init__(self, config: ProganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels = data.image_size, data.channels
        self.growth = progan.Growth(size, config.growing, config.fading)
        self.generator = progan.Generator(config.num_latents, size, channels, config.generator_width)
        self.critic = progan.Discriminator(size, channels, config.critic_width)

    def stage(self, progress: Progress) -> int:
        """The level, from 4 x 4."""
        return self.growth.level(progress.fraction)

    def players(self) -> dict[str, Player]:
        # Which layers are on changes during the training, and the penalty differentiates the critic twice.
        return {
            "generator": Player([self.generator], self.config.adam_generator, averaged=True, compiled=False),
            "critic": Player([self.critic], self.config.adam_critic, compiled=False),
        }

    def _generate(self, batch: Batch, progress: Progress) -> Tensor:
        z_NZ = batch.latent(self.config.num_latents)
        images_NCHW: Tensor = self.generator(z_NZ, *self.growth.at(progress.fraction))
        return images_NCHW

    def phases(self, progress: Progress) -> list[Phase]:
        return [Phase("critic", self.critic_losses), Phase("generator", self.generator_losses)]

    def critic_losses(self, batch: Batch, progress: Progress) -> Losses:
        level, fade = self.growth.at(progress.fraction)

        def critic(images_NCHW: Tensor) -> Tensor:
            scores_N: Tensor = self.critic(images_NCHW, level, fade)
            return scores_N

        fake_NCHW = self._generate(batch, progress).detach()
        real_NCHW = progan.faded(batch[self.fields[0]], level, fade)
        real_NCHW, fake_NCHW = self.augmentation(real_NCHW, batch), self.augmentation(fake_NCHW, batch)
        real_scores, fake_scores = critic(real_NCHW), critic(fake_NCHW)
        batch.observe("score_real", real_scores)
        batch.observe("score_fake", fake_scores)

        def gradient(images_NCHW: Tensor) -> Tensor:
            return input_gradient(critic, images_NCHW)

        penalty = gradient_penalty(gradient, real_NCHW, fake_NCHW, batch.mixing())
        return {
            "adversarial": wasserstein_critic(real_scores, fake_scores),
            "gradient_penalty": self.config.penalty_weight * penalty,
            "drift": self.config.drift_weight * wide(real_scores).square().mean(),
        }

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        fake_NCHW = self.augmentation(self._generate(batch, progress), batch)
        scores_N = self.critic(fake_NCHW, *self.growth.at(progress.fraction))
        return {"adversarial": wasserstein_generator(scores_N)}

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        return self._generate(conditions, progress)
