"""The common part of GANs that complete images: what they are given is an image with a hole, and the hole's mask.

Legend: N samples, C channels, H = W image size.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from ..fields import Mask
from .base import Batch, DataSpec, Derived, GanConfig, Origin, Stored
from .holes import Hole, HoleKind, WithHole, with_hole
from .pair import AdversarialPair


class CompletingSettings(GanConfig):
    """Which part of an image is missing in training and evaluation."""

    hole: HoleKind = "centre"
    """centre: the middle quarter of the area. block: one block at a random place. blocks: two to four smaller blocks.
    strokes: a broad line of random bends."""
    generator_width: int = Field(default=32, ge=1)
    """Feature maps of the generator's first layer; 64 in the papers."""
    discriminator_width: int = Field(default=32, ge=1)
    """Feature maps of the discriminator's first layer; 64 in the papers."""


class CompletingGan(AdversarialPair):
    """Only the hole of what the generator makes is used: the rest is the image that was given."""

    config: CompletingSettings
    needs_power_of_two = True
    fields = ("image", "source", "mask")
    given = ("source", "mask")
    has_latents = False
    generator: nn.Module

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        assert isinstance(config, CompletingSettings)
        return {
            "image": Stored(data.main),
            "source": Derived(data.main, WithHole(config.hole), data.image),
            "mask": Derived(data.main, Hole(config.hole), Mask(size=data.image_size)),
        }

    def made(self, batch: Batch) -> Tensor:
        """What the generator makes of the image with a hole, (N, C, H, W): the whole image."""
        # The registered model may be given a whole image and a mask.
        source_NCHW = with_hole(batch["source"], batch["mask"])
        return batch.once("made", lambda: self.generator(torch.cat([source_NCHW, batch["mask"]], dim=1)))

    def generate(self, batch: Batch) -> Tensor:
        made_NCHW = self.made(batch)
        return torch.where(batch["mask"] > 0, made_NCHW, batch["source"].to(made_NCHW.dtype))
