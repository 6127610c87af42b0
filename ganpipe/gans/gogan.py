"""GoGAN: gang of GANs, with maximum margin ranking (Juefei-Xu 2017, arXiv 1704.04865).

Legend: N samples, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from ..losses.adversarial import margin_ranking
from .base import Batch, DataSpec, Losses, Phase, Progress
from .clipped import ClippedPair, ClippedSettings


class GoganSettings(ClippedSettings):
    """Margin and stages; networks and clipping are WGAN's."""

    num_stages: int = Field(default=3, ge=1)
    """Stages, of equal length: in each after the first, the generator has to surpass that of the stage before."""
    margin: float = Field(default=1.0, gt=0)
    """epsilon: how much higher the critic has to score a real image than a generated one; twice as much for an image of
    the stage before."""
    ranking_weight: float = Field(default=0.5, ge=0)
    """Weight of the ranking loss beside the margin loss."""


class Gogan(ClippedPair):
    """The critic ranks: real images, then those of this stage, then those of the stage before, a margin between them.

    A stage goes on with the weights of the one before. Where a stage ends is not known one step ahead, so that two sets
    of weights, as buffers, take turns: one is this stage's up to now, the other that of the end of the stage before.
    """

    Config = GoganSettings
    config: GoganSettings

    def __init__(self, config: GoganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        self.discriminator_loss = partial(margin_ranking, margin=config.margin)
        for slot in (0, 1):
            for name, tensor in self.generator.state_dict().items():
                self.register_buffer(_buffer_name(slot, name), tensor.clone())

    def stage(self, progress: Progress) -> int:
        return min(self.config.num_stages - 1, int(progress.fraction * self.config.num_stages))

    def phases(self, progress: Progress) -> list[Phase]:
        critic, generator = super().phases(progress)
        return [dataclasses.replace(critic, losses=self.critic_losses), generator]

    def critic_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Section 3: the margin loss and, after the first stage, the ranking loss."""
        losses = self.discriminator_losses(batch, progress)
        if stage := self.stage(progress):
            real_N = self.discriminate(batch[self.fields[0]], batch)
            earlier_N = self.discriminate(self._of_the_stage_before(stage, batch), batch)
            ranking = margin_ranking(real_N, earlier_N, 2 * self.config.margin)
            losses["ranking"] = self.config.ranking_weight * ranking
        return losses

    @torch.no_grad()
    def _of_the_stage_before(self, stage: int, batch: Batch) -> Tensor:
        weights = {name: getattr(self, _buffer_name((stage - 1) % 2, name)) for name in self.generator.state_dict()}
        images_NCHW: Tensor = torch.func.functional_call(self.generator, weights, batch.latent(self.config.num_latents))
        return images_NCHW

    @torch.no_grad()
    def adapt(self, observed: Mapping[str, Tensor], progress: Progress) -> None:
        slot = self.stage(progress) % 2
        for name, tensor in self.generator.state_dict().items():
            getattr(self, _buffer_name(slot, name)).copy_(tensor)


def _buffer_name(slot: int, name: str) -> str:
    return f"stage_{slot}_{name.replace('.', '_')}"
