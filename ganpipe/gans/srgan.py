"""SRGAN: photo-realistic single image super-resolution (Ledig 2017, arXiv 1609.04802).

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from ..fields import Picture
from ..losses.reconstruction import squared
from ..networks import srgan
from . import perceptual
from .base import Batch, DataSpec, Derived, GanConfig, Losses, Origin, Phase, Player, Progress, Stored
from .degradations import Smaller
from .optimizers import Adam, Optimizer
from .pair import AdversarialPair
from .perceptual import content_distance


class SrganSettings(GanConfig):
    """Sections 2.2 and 3.2."""

    factor: Literal[2, 4, 8] = 4
    """How many times larger, in height and width."""
    generator_width: int = Field(default=32, ge=1)
    """Feature maps of the generator; 64 in the paper, which took days on a GPU."""
    num_blocks: int = Field(default=5, ge=1)
    """Residual blocks of the generator; 16 in the paper."""
    discriminator_width: int = Field(default=16, ge=1)
    """Feature maps of the discriminator's first layer; 64 in the paper."""
    pretraining: float = Field(default=0.75, ge=0, le=1)
    """Share of the training in which the generator learns by the mean squared error alone (SRResNet). 1: all of it."""
    content_weight: float = Field(default=3e-4, ge=0)
    """Weight of the mean squared distance of a classifier's feature maps: about as large as the pixels' error then.
    The paper's 6e-3 is for VGG-19, whose maps differ less; here it makes coloured fringes."""
    pixel_weight: float = Field(default=1.0, ge=0)
    """Weight of the mean squared error beside it; 0 in the paper."""
    adversarial_weight: float = Field(default=3e-3, ge=0)
    """Weight of the adversarial loss (eq. 3); 1e-3 in the paper."""
    adam_generator: Adam = Adam(lr=5e-4, beta1=0.9, beta2=0.999)
    """The generator's optimiser; 1e-4 in the paper, for a million updates."""
    adam_discriminator: Adam = Adam(lr=1e-4, beta1=0.9, beta2=0.999)
    """The discriminator's optimiser."""


class Srgan(AdversarialPair):
    """First the mean squared error alone, then a perceptual loss of content and adversary.

    Departs from the paper in the network of the content loss, EfficientNet-Lite0 in place of VGG-19, and in the pixels'
    error beside it, because that network's maps at an eighth of a small image's size say little of its colours.
    """

    Config = SrganSettings
    depends_on_length = True
    config: SrganSettings
    needs_power_of_two = True
    fields = ("image", "source")
    given = ("source",)
    has_latents = False

    def __init__(self, config: SrganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels = data.image_size, data.channels
        self.generator = srgan.SrResNet(channels, config.factor, config.generator_width, config.num_blocks)
        self.discriminator = srgan.discriminator(size, channels, config.discriminator_width)

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        assert isinstance(config, SrganSettings)
        small = Picture.model_validate({"size": data.image_size // config.factor, "channels": data.channels})
        return {"image": Stored(data.main), "source": Derived(data.main, Smaller(config.factor), small)}

    def frozen_networks(self) -> dict[str, Callable[[], nn.Module]]:
        return perceptual.classifier()

    def stage(self, progress: Progress) -> int:
        return int(progress.fraction >= self.config.pretraining)

    def players(self) -> dict[str, Player]:
        players = super().players()
        return {name: dataclasses.replace(player, over_time=self._rate) for name, player in players.items()}

    def _rate(self, settings: Optimizer, progress: Progress) -> Optimizer:
        """A tenth in the second half of the adversarial training (section 3.2)."""
        halfway = (1 + self.config.pretraining) / 2
        is_late = self.stage(progress) == 1 and progress.fraction >= halfway
        return settings.model_copy(update={"lr": settings.lr * 0.1}) if is_late else settings

    def phases(self, progress: Progress) -> list[Phase]:
        if self.stage(progress) == 0:
            return [Phase("generator", self.pretraining_losses)]
        return super().phases(progress)

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW: Tensor = self.generator(batch["source"])
        return images_NCHW

    def pretraining_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 4."""
        return {"pixels": squared(self._generated(batch), batch["image"])}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 3."""
        made, wanted = self._generated(batch), batch["image"]
        adversarial = super().generator_losses(batch, progress)["adversarial"]
        return {
            "content": self.config.content_weight * content_distance(self.frozen, made, wanted),
            "pixels": self.config.pixel_weight * squared(made, wanted),
            "adversarial": self.config.adversarial_weight * adversarial,
        }
