"""The common part of GANs with an encoder: they make images from the prior's latents, and from those of real images.

Legend: N samples, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from .base import Batch, Gan, GanConfig, Player, Progress


class AutoEncodingGan(Gan):
    """An encoder, a generator, and one discriminator or several.

    The encoder is averaged and packaged with the generator, because `reconstruct` needs both. Phases share what no
    update between them changes: discriminators move first, then the generator, the encoder last.
    """

    config: GanConfig
    needs_power_of_two = True
    reconstructs = True
    encoder: nn.Module
    generator: nn.Module

    def players(self) -> dict[str, Player]:
        """Each has the name of its module, as in the settings."""
        return {
            name: Player([getattr(self, name)], self.config.optimizer_of(name), name in ("encoder", "generator"))
            for name in self.config.players
        }

    @abstractmethod
    def latents(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Latents of the batch's images, and latents from the prior, each (N, Z); the encoder sees the images once."""

    @abstractmethod
    def encode(self, images_NCHW: Tensor) -> Tensor:
        """The latents that fit images best, (N, Z)."""

    def images(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Reconstructions of the batch's images, and images from the prior, each (N, C, H, W), until the generator
        moves."""
        encoded_NZ, prior_NZ = self.latents(batch)
        reconstructed_NCHW = batch.once("reconstructed", lambda: self.generator(encoded_NZ))
        return reconstructed_NCHW, batch.once("sampled", lambda: self.generator(prior_NZ))

    def observe_scores(self, batch: Batch, real_N: Tensor, reconstructed_N: Tensor, sampled_N: Tensor) -> None:
        """Log the probabilities of being real that these logits mean."""
        for name, logits_N in (("real", real_N), ("reconstructed", reconstructed_N), ("fake", sampled_N)):
            batch.observe(f"score_{name}", torch.sigmoid(logits_N))

    def reconstruct(self, batch: Batch, progress: Progress) -> Tensor:
        images_NCHW: Tensor = self.generator(self.encode(batch[self.fields[0]]))
        return images_NCHW
