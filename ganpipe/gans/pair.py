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
from .base import Batch, Gan, Losses, Phase, Player, Progress


class AdversarialPair(Gan):
    """The common case: one generator against one discriminator, which moves first.

    What stands here is Goodfellow 2014's cross-entropy game with the non-saturating generator loss; a paper that
    changes only the two losses overrides `opponent_loss` and `generator_loss`.
    """

    opponent: ClassVar[str] = "discriminator"
    """The second player's name; `critic` in the Wasserstein family. Its module is the attribute of that name."""
    apart: ClassVar[bool] = True
    """Whether real and generated images pass the opponent apart, each with their own batch statistics. Where it has no
    batch norm the result is the same, and one pass for both is faster."""
    shares_images: ClassVar[bool] = True
    """Whether the generator learns from the images that the opponent has just seen, which saves a pass."""
    generator: nn.Module

    opponent_loss: Callable[[Tensor, Tensor], Tensor] = staticmethod(adversarial.discriminator_cross_entropy)
    """(real logits, fake logits) -> scalar."""
    generator_loss: Callable[[Tensor], Tensor] = staticmethod(adversarial.non_saturating)
    """fake logits -> scalar."""
    score: Callable[[Tensor], Tensor] = staticmethod(torch.sigmoid)
    """Logits -> what is logged as score_real and score_fake: here the probability of being real, D(x)."""

    @abstractmethod
    def generate(self, batch: Batch) -> Tensor:
        """Images from fresh latents (and the batch's conditions), (N, C, H, W)."""

    def judge(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        """The opponent's logits for images (under the batch's conditions), (N, ...)."""
        logits: Tensor = getattr(self, self.opponent)(images_NCHW)
        return logits

    def players(self) -> dict[str, Player]:
        return {
            name: Player([getattr(self, name)], self.config.optimizer_of(name), averaged=name == "generator")
            for name in ("generator", self.opponent)
        }

    def phases(self, progress: Progress) -> list[Phase]:
        return [
            Phase(self.opponent, self.opponent_losses),
            Phase("generator", self.generator_losses, shares_batch=self.shares_images),
        ]

    def opponent_losses(self, batch: Batch, progress: Progress) -> Losses:
        """What the discriminator or critic minimises."""
        with torch.set_grad_enabled(self.shares_images):
            fake_NCHW = self._generated(batch)
        return self.opponent_losses_on(fake_NCHW.detach(), batch)

    def _generated(self, batch: Batch) -> Tensor:
        return batch.once("generated", lambda: self.generate(batch))

    def opponent_losses_on(self, fake_NCHW: Tensor, batch: Batch) -> Losses:
        """The same for given generated images."""
        real_NCHW = batch[self.fields[0]]
        if self.apart:
            real_logits, fake_logits = self.judge(real_NCHW, batch), self.judge(fake_NCHW, batch)
        else:
            both_NCHW = torch.cat([real_NCHW, fake_NCHW.to(real_NCHW.dtype)])
            real_logits, fake_logits = self.judge(both_NCHW, batch.doubled(self.given)).chunk(2)
        batch.observe("score_real", self.score(real_logits))
        batch.observe("score_fake", self.score(fake_logits))
        return {"adversarial": self.opponent_loss(real_logits, fake_logits)}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """What the generator minimises."""
        return {"adversarial": self.generator_loss(self.judge(self._generated(batch), batch))}

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        return self.generate(conditions)
