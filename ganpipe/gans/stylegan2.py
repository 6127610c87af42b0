"""StyleGAN2: analyzing and improving the image quality of StyleGAN (Karras 2019, arXiv 1912.04958).

Legend: N samples, L layers that take a style, D style size, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from ..losses.penalties import input_gradient, path_lengths, squared_gradient_norm
from ..losses.reconstruction import squared
from ..networks import stylegan2
from .base import Batch, DataSpec, Losses, Phase, Player, Progress
from .optimizers import Adam
from .pair import AdversarialPair
from .styles import StyleBased, StyleSettings


class Stylegan2Settings(StyleSettings):
    """Appendix B."""

    generator_width: int = Field(default=16, ge=1)
    """Feature maps at the largest size; smaller sizes have up to 8 times as many (512 in the paper, at 1024 pixels)."""
    discriminator_width: int = Field(default=16, ge=1)
    """The same of the discriminator."""
    r1_gamma: float = Field(default=10.0, ge=0)
    """gamma of R1, the penalty of the discriminator's gradient at real images."""
    r1_every: int = Field(default=2, ge=1)
    """R1 is minimised in each so many-th step; 16 in the paper, whose trainings are a thousand times longer."""
    path_weight: float = Field(default=0.0, ge=0)
    """Weight of path length regularisation; 2 in the paper, and 0 (off) in the authors' settings for 32 pixels (Karras
    2020, arXiv 2006.06676). Divided by the number of pixels and layers, it is the paper's gamma_pl."""
    path_every: int = Field(default=4, ge=1)
    """Path lengths are regularised in each so many-th step."""
    adam_generator: Adam = Adam(lr=1e-2, beta1=0.0, beta2=0.99)
    """The optimiser of mapping and synthesis, before the correction for lazy regularisation; 2e-3 in the paper."""
    adam_discriminator: Adam = Adam(lr=1e-2, beta1=0.0, beta2=0.99)
    """The discriminator's optimiser, before that correction."""


class Stylegan2(StyleBased, AdversarialPair):
    """Modulated weights in place of AdaIN, nothing grows, and both regularisations are lazy: phases of their own.

    A phase of regularisation steps the same optimiser as the player's main phase, as in the authors' code.
    """

    Config = Stylegan2Settings
    config: Stylegan2Settings
    needs_power_of_two = True
    generator: stylegan2.Generator
    path_mean: Tensor

    def __init__(self, config: Stylegan2Settings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, num_styles = data.image_size, data.channels, config.num_latents
        self.generator = stylegan2.Generator(size, channels, config.generator_width, self.mapping(), num_styles)
        self.discriminator = stylegan2.discriminator(size, channels, config.discriminator_width)
        self.register_buffer("path_mean", torch.zeros(()))

    def players(self) -> dict[str, Player]:
        # Both regularisations differentiate twice.
        adam_generator, adam_discriminator = self.config.adam_generator, self.config.adam_discriminator
        if self.config.path_weight:
            adam_generator = lazily(adam_generator, self.config.path_every)
        if self.config.r1_gamma:
            adam_discriminator = lazily(adam_discriminator, self.config.r1_every)
        return {
            "generator": Player([self.generator], adam_generator, averaged=True, compiled=False),
            "discriminator": Player([self.discriminator], adam_discriminator, compiled=False),
        }

    def phases(self, progress: Progress) -> list[Phase]:
        phases = super().phases(progress)
        if self.config.r1_gamma:
            phases.append(Phase("discriminator", self.r1_losses, every=self.config.r1_every))
        if self.config.path_weight:
            phases.append(Phase("generator", self.path_losses, every=self.config.path_every))
        return phases

    def generate(self, batch: Batch) -> Tensor:
        return self._synthesise(self.mixed_styles(batch, self.generator.num_layers), batch)

    def synthesise(self, w_NLD: Tensor, batch: Batch, progress: Progress) -> Tensor:
        return self._synthesise(w_NLD, batch)

    def _synthesise(self, w_NLD: Tensor, batch: Batch) -> Tensor:
        noise = [batch.to_device(batch.draws.normal(*shape)) for shape in self.generator.noise_shapes]
        images_NCHW: Tensor = self.generator(w_NLD, noise)
        return images_NCHW

    def r1_losses(self, batch: Batch, progress: Progress) -> Losses:
        """R1 (Mescheder 2018, arXiv 1801.04406), times the steps for which it stands."""
        penalty = squared_gradient_norm(
            input_gradient(self.discriminator, self.augmentation(batch[self.fields[0]], batch))
        )
        return {"r1": self.config.r1_every * self.config.r1_gamma / 2 * penalty}

    def path_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 4, times the steps for which it stands."""
        w_NLD = self.mixed_styles(batch, self.generator.num_layers)
        images_NCHW = self._synthesise(w_NLD, batch)
        lengths_N = path_lengths(images_NCHW, w_NLD, batch.to_device(batch.draws.normal(*images_NCHW.shape[1:])))
        batch.observe("path_length", lengths_N)
        distance = squared(lengths_N, self.path_mean.expand(len(lengths_N)))
        return {"path": self.config.path_every * self.config.path_weight * distance}

    def adapt(self, observed: Mapping[str, Tensor], progress: Progress) -> None:
        """Moves the mean of the path lengths, a in equation 4.

        At first it is the mean of all lengths: a moving average that begins at 0, as in the authors' code, would
        shorten all paths for as long as a short training lasts.
        """
        if "path_length" in observed:
            weight = max(0.01, 1 / (1 + progress.step // self.config.path_every))
            self.path_mean.lerp_(observed["path_length"].to(self.path_mean.dtype), weight)


def lazily(settings: Adam, every: int) -> Adam:
    """Adam's settings for a player that is regularised in each `every`-th step: every + 1 updates then move and forget
    as much as `every` would (appendix B)."""
    share = every / (every + 1)
    changed = {"lr": settings.lr * share, "beta1": settings.beta1**share, "beta2": settings.beta2**share}
    return settings.model_copy(update=changed)
