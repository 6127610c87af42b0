"""The common case of a GAN: one generator against one discriminator or critic.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..losses import adversarial
from .augmentation import Kind
from .base import Batch, Gan, Losses, Phase, Player, Progress


class AdversarialPair(Gan):
    """The common case: one generator against one discriminator, which moves first.

    What stands here is Goodfellow 2014's cross-entropy game with the non-saturating generator loss; a paper that
    changes only the two losses overrides `discriminator_loss` and `generator_loss`.
    """

    discriminator_name: ClassVar[str] = "discriminator"
    """The second player's name; `critic` in the Wasserstein family. Its module is the attribute of that name."""
    augmentations: ClassVar[tuple[Kind, ...]] = ("diffaugment", "ada")
    separate_passes: ClassVar[bool] = True
    """Whether the discriminator sees real and generated images in two passes, each with its own batch statistics.
    Without batch norm the result is the same, and a single pass for both is faster."""
    shares_images: bool = True
    """Whether the generator learns from the images that the discriminator has just seen, which saves a pass."""
    generator: nn.Module

    discriminator_loss: Callable[[Tensor, Tensor], Tensor] = staticmethod(adversarial.discriminator_cross_entropy)
    """(real logits, fake logits) -> scalar."""
    generator_loss: Callable[[Tensor], Tensor] = staticmethod(adversarial.non_saturating)
    """fake logits -> scalar."""
    logged_score: Callable[[Tensor], Tensor] = staticmethod(torch.sigmoid)
    """Logits -> what is logged as score_real and score_fake: here the probability of being real, D(x)."""

    @abstractmethod
    def generate(self, batch: Batch) -> Tensor:
        """Images from fresh latents (and the batch's conditions), (N, C, H, W)."""

    def discriminate(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        """The discriminator's logits for images (under the batch's conditions), (N, ...)."""
        logits: Tensor = getattr(self, self.discriminator_name)(self.augmentation(images_NCHW, batch))
        return logits

    def players(self) -> dict[str, Player]:
        return {
            name: Player([getattr(self, name)], self.config.optimizer_of(name), averaged=name == "generator")
            for name in ("generator", self.discriminator_name)
        }

    def phases(self, progress: Progress) -> list[Phase]:
        return [
            Phase(self.discriminator_name, self.discriminator_losses),
            Phase("generator", self.generator_losses, shares_batch=self.shares_images),
        ]

    def discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """What the discriminator or critic minimises."""
        with torch.set_grad_enabled(self.shares_images):
            fake_NCHW = self._generated(batch)
        return self.discriminator_losses_on(fake_NCHW.detach(), batch)

    def _generated(self, batch: Batch) -> Tensor:
        return batch.once("generated", lambda: self.generate(batch))

    def discriminator_losses_on(self, fake_NCHW: Tensor, batch: Batch) -> Losses:
        """What the discriminator or critic minimises, for these generated images (N, C, H, W)."""
        real_NCHW = batch[self.fields[0]]
        if self.separate_passes:
            real_logits, fake_logits = self.discriminate(real_NCHW, batch), self.discriminate(fake_NCHW, batch)
        else:
            both_NCHW = torch.cat([real_NCHW, fake_NCHW.to(real_NCHW.dtype)])
            real_logits, fake_logits = self.discriminate(both_NCHW, batch.doubled(self.given)).chunk(2)
        self.augmentation.observe(real_logits, batch)
        batch.observe("score_real", self.logged_score(real_logits))
        batch.observe("score_fake", self.logged_score(fake_logits))
        return {"adversarial": self.discriminator_loss(real_logits, fake_logits)}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """What the generator minimises."""
        return {"adversarial": self.generator_loss(self.discriminate(self._generated(batch), batch))}

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        return self.generate(conditions)
