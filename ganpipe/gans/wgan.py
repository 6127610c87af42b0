"""WGAN: Wasserstein GAN with weight clipping (Arjovsky 2017, arXiv 1701.07875).

Legend: N samples, C channels, H = W image size.
"""

from __future__ import annotations

from torch import Tensor

from ..losses.adversarial import wasserstein_critic
from .base import Batch, Losses
from .clipped import ClippedPair, ClippedSettings


class WganSettings(ClippedSettings):
    """See `ClippedSettings`."""


class Wgan(ClippedPair):
    """The critic's loss estimates the Wasserstein distance of real and generated images, up to a factor."""

    Config = WganSettings
    discriminator_loss = staticmethod(wasserstein_critic)

    def discriminator_losses_on(self, fake_NCHW: Tensor, batch: Batch) -> Losses:
        losses = super().discriminator_losses_on(fake_NCHW, batch)
        # The factor is the critic's Lipschitz constant (section 3). The curve falls as samples get better.
        batch.observe("distance_estimate", -losses["adversarial"])
        return losses
