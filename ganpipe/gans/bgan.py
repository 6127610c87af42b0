"""BGAN: boundary-seeking generative adversarial networks (Hjelm 2017, arXiv 1702.08431).

Legend: N samples, M binary images of a latent, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ..losses.adversarial import boundary_seeking, importance_weighted, wide
from .base import Batch, DataSpec, Derived, GanConfig, Losses, Origin, Player, Progress, decaying
from .convolutional import ConvolutionalPair, ConvolutionalSettings
from .draws import Draws
from .optimizers import Adam


class BganSettings(ConvolutionalSettings):
    """DCGAN's networks. The generator's rate is higher than DCGAN's, and rates fall at the end: a short training learns
    more with them (FID on MNIST after 140,000 images 54; 126 with DCGAN's constant rates)."""

    pixels: Literal["continuous", "binary"] = "continuous"
    """`binary`: real images are black and white, and the generator puts out each pixel's probability of being white."""
    num_samples: int = Field(default=20, ge=2)
    """M: binary images per latent, from which the generator's gradient is estimated."""
    decay_from: float = Field(default=0.6, ge=0, le=1)
    """Share of the training after which learning rates fall linearly, to zero at its end. 1: they do not."""
    adam_generator: Adam = Adam(lr=1e-3, beta1=0.5, beta2=0.999)
    """The generator's optimiser."""


def _binarised(images_NCHW: Tensor, draws: Draws) -> Tensor:
    """-1 or 1 for each pixel: which side of middle grey it is on."""
    return torch.where(images_NCHW > 0, 1.0, -1.0).to(images_NCHW.dtype)


class Bgan(ConvolutionalPair):
    """The generator seeks images on the discriminator's decision boundary, D = 1/2.

    Binary pixels let no gradient through, so there the generator is trained by importance weights.
    """

    Config = BganSettings
    depends_on_length = True
    config: BganSettings
    generator_loss = staticmethod(boundary_seeking)

    def __init__(self, config: BganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        self.shares_images = config.pixels == "continuous"  # the M samples need draws of their own

    def players(self) -> dict[str, Player]:
        return decaying(super().players(), self.config.decay_from)

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        assert isinstance(config, BganSettings)
        if config.pixels == "continuous":
            return super().origins(config, data)
        return {"image": Derived(data.main, _binarised, data.image)}

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW = super().generate(batch)
        return images_NCHW if self.config.pixels == "continuous" else self._drawn(images_NCHW, batch, 1)[:, 0]

    def _drawn(self, means_NCHW: Tensor, batch: Batch, num_samples: int) -> Tensor:
        """Images of -1 and 1 with these means, (N, M, C, H, W)."""
        uniform_NMCHW = batch.to_device(batch.draws.uniform(num_samples, *self.data.image_shape))
        is_white_NMCHW = uniform_NMCHW < (means_NCHW.unsqueeze(1) + 1) / 2
        return is_white_NMCHW.to(batch.dtype) * 2 - 1

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        if self.config.pixels == "continuous":
            return super().generator_losses(batch, progress)
        means_NCHW = wide(super().generate(batch))
        drawn_NMCHW = self._drawn(means_NCHW.detach(), batch, self.config.num_samples)
        with torch.no_grad():
            logits_NM = self.discriminate(drawn_NMCHW.flatten(0, 1), batch).unflatten(0, drawn_NMCHW.shape[:2])
        # (1 + x m) / 2 is the probability of a pixel x = +-1 with mean m; a saturated tanh would make it 0.
        log_probabilities_NM = ((1 + drawn_NMCHW * means_NCHW.unsqueeze(1)) / 2).clamp(min=1e-6).log().sum((2, 3, 4))
        return {"adversarial": importance_weighted(logits_NM, log_probabilities_NM)}
