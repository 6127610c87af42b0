"""ProSR: a fully progressive approach to single-image super-resolution (Wang 2018, arXiv 1804.02900).

Legend: N samples, C channels, H height, W width, h size of the given image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import GanpipeError
from ..fields import Picture
from ..losses.adversarial import least_squares_discriminator, least_squares_generator
from ..losses.reconstruction import l1
from ..networks import srgan
from ..networks.prosr import Pyramid
from . import perceptual
from .base import Batch, DataSpec, Derived, Gan, GanConfig, Losses, Origin, Phase, Player, Progress, Stored
from .degradations import Smaller
from .optimizers import Adam
from .perceptual import content_distance


class ProsrSettings(GanConfig):
    """Section 3, in a small size."""

    factor: Literal[2, 4, 8] = 4
    """How many times larger, in height and width."""
    generator_width: int = Field(default=32, ge=1)
    """Feature maps of the generator; 160 in the paper."""
    num_units: int = Field(default=2, ge=1)
    """Dense compression units of each level; 9, 3 and 1 in the paper."""
    discriminator_width: int = Field(default=16, ge=1)
    """Feature maps of the first layer of each level's discriminator."""
    growing: float = Field(default=0.5, ge=0, lt=1)
    """Share of the training in which all sizes but the last are learned, each for an equal time."""
    content_weight: float = Field(default=3e-4, ge=0)
    """Weight of the distance of a classifier's feature maps."""
    adversarial_weight: float = Field(default=2e-3, ge=0)
    """Weight of the adversarial loss; 0 is the paper's ProSR without a discriminator."""
    adam_generator: Adam = Adam(lr=5e-4, beta1=0.9, beta2=0.999)
    """The generator's optimiser; 1e-4 in the paper."""
    adam_discriminators: Adam = Adam(lr=1e-4, beta1=0.9, beta2=0.999)
    """The optimiser of the discriminators."""


class Prosr(Gan):
    """Twice the size first, then four times: each level corrects a bicubic image, and has its own discriminator."""

    Config = ProsrSettings
    depends_on_length = True
    config: ProsrSettings
    needs_power_of_two = True
    augmentations = ("diffaugment",)
    fields = ("image", "source")
    given = ("source",)
    has_latents = False

    def __init__(self, config: ProsrSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels = data.image_size, data.channels
        self.num_levels = int(math.log2(config.factor))
        self.generator = Pyramid(channels, config.factor, config.generator_width, config.num_units)
        sizes = [size // 2 ** (self.num_levels - level) for level in range(1, self.num_levels + 1)]
        self.discriminators = nn.ModuleList(
            srgan.discriminator(each, channels, config.discriminator_width) for each in sizes
        )

    @classmethod
    def check(cls, config: GanConfig, data: DataSpec) -> None:
        super().check(config, data)
        assert isinstance(config, ProsrSettings)
        if data.image_size < 4 * config.factor:
            raise GanpipeError(
                f"gans.prosr.factor: got {config.factor}; images of {data.image_size} pixels allow at most "
                f"{data.image_size // 4}, because its first discriminator sees images of twice the given size"
            )

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        assert isinstance(config, ProsrSettings)
        small = Picture.model_validate({"size": data.image_size // config.factor, "channels": data.channels})
        return {"image": Stored(data.main), "source": Derived(data.main, Smaller(config.factor), small)}

    def frozen_networks(self) -> dict[str, Callable[[], nn.Module]]:
        return perceptual.classifier() if self.config.content_weight else {}

    def stage(self, progress: Progress) -> int:
        """Number of levels that are trained, less 1."""
        if progress.fraction >= self.config.growing:
            return self.num_levels - 1
        return min(self.num_levels - 1, int(progress.fraction / self.config.growing * (self.num_levels - 1)))

    def players(self) -> dict[str, Player]:
        return {
            "generator": Player([self.generator], self.config.adam_generator, averaged=True),
            "discriminators": Player([self.discriminators], self.config.adam_discriminators),
        }

    def phases(self, progress: Progress) -> list[Phase]:
        generator = Phase("generator", self.generator_losses, shares_batch=bool(self.config.adversarial_weight))
        if not self.config.adversarial_weight:
            return [generator]
        return [Phase("discriminators", self.discriminator_losses), generator]

    def _enlarged(self, small_NChh: Tensor, num_levels: int) -> Tensor:
        """Images of 2 ** num_levels times the size, in [-1, 1]: the bicubic image and its correction."""
        size = small_NChh.shape[-1] * 2**num_levels
        bicubic = F.interpolate(small_NChh.float(), (size, size), mode="bicubic", align_corners=False)
        correction: Tensor = self.generator(small_NChh, num_levels)
        return (bicubic.to(correction.dtype) + correction).clamp(-1, 1)

    def _made(self, batch: Batch, progress: Progress) -> Tensor:
        return batch.once("made", lambda: self._enlarged(batch["source"], self.stage(progress) + 1))

    def _wanted(self, batch: Batch, progress: Progress) -> Tensor:
        """The images at this stage's size."""
        factor = 2 ** (self.num_levels - 1 - self.stage(progress))
        return F.avg_pool2d(batch["image"], factor) if factor > 1 else batch["image"]

    def _scores(self, images_NCHW: Tensor, batch: Batch, progress: Progress) -> Tensor:
        scores_N: Tensor = self.discriminators[self.stage(progress)](self.augmentation(images_NCHW, batch))
        return scores_N

    def discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        wanted = self._wanted(batch, progress)
        real_N = self._scores(wanted, batch, progress)
        fake_N = self._scores(self._made(batch, progress).detach().to(wanted.dtype), batch, progress)
        batch.observe("score_real", real_N)
        batch.observe("score_fake", fake_N)
        return {"adversarial": least_squares_discriminator(real_N, fake_N)}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        made, wanted = self._made(batch, progress), self._wanted(batch, progress)
        losses = {"pixels": l1(made, wanted)}
        if weight := self.config.content_weight:
            losses["content"] = weight * content_distance(self.frozen, made, wanted)
        if weight := self.config.adversarial_weight:
            losses["adversarial"] = weight * least_squares_generator(self._scores(made, batch, progress))
        return losses

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        num_levels = self.stage(progress) + 1
        images_NCHW = self._enlarged(conditions["source"], num_levels)
        factor = 2 ** (self.num_levels - num_levels)
        return images_NCHW.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
