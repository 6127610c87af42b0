"""Deep multi-scale video prediction beyond mean square error (Mathieu 2015, arXiv 1511.05440).

Legend: N samples, P frames of the past, T frames of the future, C channels, H height, W width, Z latent size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from ..errors import GanpipeError
from ..fields import Frames
from ..losses.adversarial import discriminator_cross_entropy, non_saturating
from ..losses.reconstruction import gradient_difference, squared
from ..networks.video import MultiScaleDiscriminator, MultiScalePredictor, scaled
from .base import Batch, DataSpec, GanConfig, Losses, Phase, Progress
from .optimizers import Adam
from .pair import AdversarialPair
from .spec import MIN_SIZE, require_power_of_two


class VideoPredictionSettings(GanConfig):
    """Section 3; the optimisers are Adam's in place of gradient descent."""

    num_latents: int = Field(default=4, ge=1)
    """Z, numbers that are drawn for each sample: what the past leaves open. The paper has none."""
    generator_width: int = Field(default=16, ge=1)
    """Feature maps of the generator's outer layers; its inner layers have twice as many. 128 in the paper."""
    discriminator_width: int = Field(default=16, ge=1)
    """Feature maps of the discriminators' first layer."""
    num_scales: int = Field(default=3, ge=1, le=4)
    """Sizes at which the future is made; 4 in the paper."""
    squared_weight: float = Field(default=1.0, ge=0)
    """lambda_lp, the weight of the mean squared error."""
    gradient_weight: float = Field(default=1.0, ge=0)
    """lambda_gdl, the weight of the gradient difference loss, which is large where edges are blurred."""
    adversarial_weight: float = Field(default=0.02, ge=0)
    """lambda_adv, the weight of the adversarial loss; 0.05 in the paper. 0 with gradient_weight 0 is the network under
    the squared error alone, whose future is blurred."""
    adam_generator: Adam = Adam(lr=1e-3, beta1=0.5, beta2=0.999)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The discriminators' optimiser."""


class VideoPrediction(AdversarialPair):
    """All frames of the future at once, coarse ones first; discriminators see past and future together at each scale.

    Departs from the paper, which predicts one frame, and then the next from it.
    """

    Config = VideoPredictionSettings
    config: VideoPredictionSettings
    augmentations = ()  # past and future would have to move together
    fields = ("future", "past")
    given = ("past",)
    makes = "frames"
    generator: MultiScalePredictor

    def __init__(self, config: VideoPredictionSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        past, future = (self._num_maps(data, name) for name in ("past", "future"))
        self.generator = MultiScalePredictor(
            past, future, config.num_latents, config.generator_width, config.num_scales
        )
        self.discriminator = MultiScaleDiscriminator(
            past + future, data.image_size, config.discriminator_width, config.num_scales
        )

    @staticmethod
    def _num_maps(data: DataSpec, name: str) -> int:
        spec = data.fields[name]
        assert isinstance(spec, Frames)
        return spec.num_frames * spec.channels

    @classmethod
    def check(cls, config: GanConfig, data: DataSpec) -> None:
        super().check(config, data)
        assert isinstance(config, VideoPredictionSettings)
        past, future = data.fields["past"], data.fields["future"]
        if not (isinstance(past, Frames) and isinstance(future, Frames)) or past.size != future.size:
            raise GanpipeError(f"video_prediction needs frames of one size; got {past.text} and {future.text}")
        require_power_of_two(future.size, "video_prediction")
        if future.size < MIN_SIZE // 2 * 2 ** (config.num_scales - 1):
            raise GanpipeError(
                f"gans.video_prediction.num_scales: got {config.num_scales}; frames of {future.size} pixels allow at "
                f"most {future.size.bit_length() - 3}"
            )

    def phases(self, progress: Progress) -> list[Phase]:
        return (
            super().phases(progress) if self.config.adversarial_weight else [Phase("generator", self.generator_losses)]
        )

    def _predicted(self, batch: Batch) -> list[Tensor]:
        """The future at each scale, from the coarsest to the whole size, as feature maps (N, T C, h, h)."""
        names = [f"scale {number}" for number in range(self.config.num_scales)]
        if names[0] not in batch.kept:
            scales = self.generator(batch["past"].flatten(1, 2), batch.latent(self.config.num_latents))
            batch.kept.update(zip(names, scales, strict=True))
        return [batch.kept[name] for name in names]

    def _scaled(self, frames_NTCHW: Tensor) -> list[Tensor]:
        """Frames of the dataset at each scale, as feature maps."""
        maps_NDHW = frames_NTCHW.flatten(1, 2)
        return [scaled(maps_NDHW, number) for number in reversed(range(self.config.num_scales))]

    def generate(self, batch: Batch) -> Tensor:
        return self._predicted(batch)[-1].clamp(-1, 1).unflatten(1, (-1, self.data.channels))

    def _logits(self, future: Sequence[Tensor], batch: Batch) -> Tensor:
        """Of past and future together, (N, number of scales)."""
        past = self._scaled(batch["past"])
        both = [torch.cat([before, after.to(before.dtype)], dim=1) for before, after in zip(past, future, strict=True)]
        logits_NS: Tensor = self.discriminator(both)
        return logits_NS

    def discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        real = self._logits(self._scaled(batch["future"]), batch)
        fake = self._logits([frames.detach() for frames in self._predicted(batch)], batch)
        batch.observe("score_real", self.logged_score(real))
        batch.observe("score_fake", self.logged_score(fake))
        return {"adversarial": discriminator_cross_entropy(real, fake)}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 7, with the mean over scales of each comparison."""
        made = self._predicted(batch)
        pairs = list(zip(made, self._scaled(batch["future"]), strict=True))
        losses = {"squared": self.config.squared_weight * torch.stack([squared(*pair) for pair in pairs]).mean()}
        if weight := self.config.gradient_weight:
            losses["gradient"] = weight * torch.stack([gradient_difference(*pair) for pair in pairs]).mean()
        if weight := self.config.adversarial_weight:
            losses["adversarial"] = weight * non_saturating(self._logits(made, batch))
        return losses
