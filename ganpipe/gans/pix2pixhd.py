"""pix2pixHD: high-resolution image synthesis with conditional GANs (Wang 2018, arXiv 1711.11585).

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import itertools

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..errors import GanpipeError
from ..fields import Picture
from ..losses.adversarial import least_squares_discriminator, least_squares_generator
from ..losses.reconstruction import feature_matching
from ..networks import dcgan, pix2pixhd
from .base import Batch, DataSpec, Gan, GanConfig, Losses, Phase, Player, Progress, decaying
from .optimizers import Adam
from .spec import require_power_of_two


class Pix2pixhdSettings(GanConfig):
    """Section 3, in smaller widths."""

    generator_width: int = Field(default=16, ge=1)
    """Feature maps of the enhancer's first layer; the coarse generator has twice as many. 32 in the paper."""
    num_blocks: int = Field(default=3, ge=0)
    """Residual blocks of both parts of the generator; 9 and 3 in the paper."""
    critic_width: int = Field(default=32, ge=1)
    """Feature maps of each critic's first layer; 64 in the paper."""
    num_scales: int = Field(default=3, ge=1, le=4)
    """How many critics there are, each at half the size of the one before."""
    coarse: float = Field(default=0.4, ge=0, lt=1)
    """Share of the training in which the coarse generator alone learns, with images of half the size."""
    matching_weight: float = Field(default=10.0, ge=0)
    """lambda, the weight of the distance of the critics' feature maps."""
    decay_from: float = Field(default=0.5, ge=0, le=1)
    """Share of the training after which learning rates fall linearly, to zero at its end."""
    adam_generator: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The generator's optimiser; 2e-4 in the paper."""
    adam_critics: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The critics' optimiser."""


class Pix2pixhd(Gan):
    """First a coarse generator at half the size, then both parts together, against critics at several scales, whose
    feature maps of the target and of what is made shall agree.

    Departs from the paper in that it has no instance maps and no perceptual loss (which the paper calls optional).
    """

    Config = Pix2pixhdSettings
    depends_on_length = True
    config: Pix2pixhdSettings
    augmentations = ("diffaugment",)
    fields = ("target", "source")
    given = ("source",)
    has_latents = False

    def __init__(self, config: Pix2pixhdSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        source, target = data.fields["source"], data.fields["target"]
        assert isinstance(source, Picture)
        assert isinstance(target, Picture)
        self.generator = pix2pixhd.CoarseToFineGenerator(
            source.channels, target.channels, config.generator_width, config.num_blocks
        )
        both = source.channels + target.channels
        self.critics = pix2pixhd.MultiScaleCritic(both, config.critic_width, config.num_scales)
        dcgan.initialise(self)

    @classmethod
    def check(cls, config: GanConfig, data: DataSpec) -> None:
        super().check(config, data)
        assert isinstance(config, Pix2pixhdSettings)
        source, target = data.fields["source"], data.fields["target"]
        if not (isinstance(source, Picture) and isinstance(target, Picture) and source.size == target.size):
            raise GanpipeError(
                f"pix2pixhd needs a source and a target of one size; got {source.text} and {target.text}; leave "
                "sources.pairs.source_size at null"
            )
        require_power_of_two(target.size, "pix2pixhd")
        # The coarse stage halves once, each critic twice, down to 2 x 2 at the least, because it has instance norm.
        if target.size < 2 ** (config.num_scales + 3):
            raise GanpipeError(
                f"gans.pix2pixhd.num_scales: got {config.num_scales}; images of {target.size} pixels allow at most "
                f"{target.size.bit_length() - 4}"
            )

    def stage(self, progress: Progress) -> int:
        """0 is the coarse stage."""
        return int(progress.fraction >= self.config.coarse)

    def players(self) -> dict[str, Player]:
        generator = Player([self.generator], self.config.adam_generator, averaged=True)
        critics = Player([self.critics], self.config.adam_critics)
        return decaying({"generator": generator, "critics": critics}, self.config.decay_from)

    def phases(self, progress: Progress) -> list[Phase]:
        return [
            Phase("critics", self.critics_losses),
            Phase("generator", self.generator_losses, shares_batch=True),
        ]

    def _made(self, batch: Batch, progress: Progress) -> Tensor:
        is_coarse = self.stage(progress) == 0
        return batch.once("made", lambda: self.generator(batch["source"], is_coarse))

    def _criticised(self, images_NCHW: Tensor, batch: Batch) -> list[list[Tensor]]:
        """The critics' feature maps of images beside their sources, which are as large as the images."""
        source_NCHW = batch["source"]
        if images_NCHW.shape[-1] < source_NCHW.shape[-1]:
            source_NCHW = F.avg_pool2d(source_NCHW, 2)
        both_NCHW = torch.cat([source_NCHW, images_NCHW.to(source_NCHW.dtype)], dim=1)
        maps: list[list[Tensor]] = self.critics(self.augmentation(both_NCHW, batch))
        return maps

    def _target(self, batch: Batch, progress: Progress) -> Tensor:
        return F.avg_pool2d(batch["target"], 2) if self.stage(progress) == 0 else batch["target"]

    def critics_losses(self, batch: Batch, progress: Progress) -> Losses:
        real = pix2pixhd.scores_of(self._criticised(self._target(batch, progress), batch))
        fake = pix2pixhd.scores_of(self._criticised(self._made(batch, progress).detach(), batch))
        batch.observe("score_real", real)
        batch.observe("score_fake", fake)
        return {"adversarial": least_squares_discriminator(real, fake)}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 5."""
        made = self._criticised(self._made(batch, progress), batch)
        with torch.no_grad():
            wanted = self._criticised(self._target(batch, progress), batch)
        layers = [zip(ours[:-1], theirs[:-1], strict=True) for ours, theirs in zip(made, wanted, strict=True)]
        return {
            "adversarial": least_squares_generator(pix2pixhd.scores_of(made)),
            "matching": self.config.matching_weight * feature_matching(itertools.chain(*layers)),
        }

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        is_coarse = self.stage(progress) == 0
        images_NCHW: Tensor = self.generator(conditions["source"], is_coarse)
        return images_NCHW.repeat_interleave(2, 2).repeat_interleave(2, 3) if is_coarse else images_NCHW
