"""StyleGAN: a style-based generator architecture for generative adversarial networks (Karras 2018, arXiv 1812.04948).

Legend: N samples, L layers that take a style, D style size, C channels, H height, W width.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ..losses.adversarial import discriminator_cross_entropy, non_saturating
from ..losses.penalties import score_gradient, squared_gradient_norm
from ..networks import progan, stylegan
from ..networks.styles import SmoothHalving
from .base import Batch, DataSpec, Losses, Phase, Player, Progress
from .optimizers import Adam
from .styles import StyleBased, StyleSettings


class StyleganSettings(StyleSettings):
    """Section 2 and appendix C."""

    generator_width: int = Field(default=16, ge=1)
    """Feature maps at the largest size; smaller sizes have up to 8 times as many (512 in the paper, at 1024 pixels)."""
    discriminator_width: int = Field(default=16, ge=1)
    """The same of the discriminator."""
    growing: float = Field(default=0.3, ge=0, le=1)
    """Share of the training in which the networks grow, equally long at each size; then all sizes are trained."""
    fading: float = Field(default=0.5, gt=0, le=1)
    """Share of a size's time in which it is faded in."""
    r1_gamma: float = Field(default=10.0, ge=0)
    """gamma of R1, the penalty of the discriminator's gradient at real images."""
    adam_generator: Adam = Adam(lr=1e-2, beta1=0.0, beta2=0.99)
    """The optimiser of mapping and synthesis; the paper's learning rate is 1e-3 up to 64 pixels."""
    adam_discriminator: Adam = Adam(lr=1e-2, beta1=0.0, beta2=0.99)
    """The discriminator's optimiser."""


class Stylegan(StyleBased):
    """ProGAN with a generator that gets its latent as styles, and Goodfellow's losses with R1."""

    Config = StyleganSettings
    depends_on_length = True
    config: StyleganSettings
    needs_power_of_two = True
    augmentations = ("diffaugment", "ada")

    def __init__(self, config: StyleganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, num_styles = data.image_size, data.channels, config.num_latents
        self.growth = progan.Growth(size, config.growing, config.fading)
        self.generator = stylegan.Generator(size, channels, config.generator_width, self.mapping(), num_styles)
        self.discriminator = progan.Discriminator(size, channels, config.discriminator_width, SmoothHalving)

    def stage(self, progress: Progress) -> int:
        """The level, from 4 x 4."""
        return self.growth.level(progress.fraction)

    def players(self) -> dict[str, Player]:
        # Which layers are on changes during the training, and R1 differentiates the discriminator twice.
        return {
            "generator": Player([self.generator], self.config.adam_generator, averaged=True, compiled=False),
            "discriminator": Player([self.discriminator], self.config.adam_discriminator, compiled=False),
        }

    def phases(self, progress: Progress) -> list[Phase]:
        return [
            Phase("discriminator", self.discriminator_losses),
            Phase("generator", self.generator_losses, shares_batch=True),
        ]

    def synthesise(self, w_NLD: Tensor, batch: Batch, progress: Progress) -> Tensor:
        level, fade = self.growth.at(progress.fraction)
        noise = [batch.to_device(batch.draws.normal(*shape)) for shape in stylegan.noise_shapes(level)]
        images_NCHW: Tensor = self.generator(w_NLD, noise, level, fade)
        return images_NCHW

    def _generated(self, batch: Batch, progress: Progress) -> Tensor:
        num_layers = len(stylegan.noise_shapes(self.stage(progress)))
        return batch.once("generated", lambda: self.synthesise(self.mixed_styles(batch, num_layers), batch, progress))

    def discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        level, fade = self.growth.at(progress.fraction)
        real_NCHW = self.augmentation(progan.faded(batch[self.fields[0]], level, fade), batch).detach().requires_grad_()
        fake_NCHW = self.augmentation(self._generated(batch, progress).detach(), batch)
        real_N, fake_N = self.discriminator(real_NCHW, level, fade), self.discriminator(fake_NCHW, level, fade)
        self.augmentation.observe(real_N, batch)
        batch.observe("score_real", real_N.sigmoid())
        batch.observe("score_fake", fake_N.sigmoid())
        penalty = squared_gradient_norm(score_gradient(real_N, real_NCHW))
        return {"adversarial": discriminator_cross_entropy(real_N, fake_N), "r1": self.config.r1_gamma / 2 * penalty}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        fake_NCHW = self.augmentation(self._generated(batch, progress), batch)
        return {"adversarial": non_saturating(self.discriminator(fake_NCHW, *self.growth.at(progress.fraction)))}
