"""Deep multi-scale video prediction beyond mean square error (Mathieu 2015, arXiv 1511.05440).

Legend: N samples, P frames from which the next is made, U frames that are made in a row, T frames of the future,
C channels, H height, W width, Z latent size.
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

    num_past: int = Field(default=4, ge=1)
    """P, frames from which the next is made; all that are given, if these are fewer."""
    num_unrolled: int = Field(default=2, ge=1)
    """U, frames that are made in a row in training, each from those before; 1 in the paper. With more of them the
    network learns to go on from its own frames."""
    num_latents: int = Field(default=4, ge=1)
    """Z, numbers that are drawn for each frame: what the past leaves open. The paper has none."""
    generator_width: int = Field(default=16, ge=1)
    """Feature maps of the generator's outer layers; its inner layers have twice as many. 128 in the paper."""
    discriminator_width: int = Field(default=16, ge=1)
    """Feature maps of the discriminators' first layer."""
    num_scales: int = Field(default=3, ge=1, le=4)
    """Sizes at which a frame is made; 4 in the paper."""
    squared_weight: float = Field(default=1.0, ge=0)
    """lambda_lp, the weight of the mean squared error."""
    gradient_weight: float = Field(default=0.1, ge=0)
    """lambda_gdl, the weight of the gradient difference loss, which is large where edges are blurred; 1 in the paper.
    With 1 a training of minutes makes frames of blocks that do not move."""
    adversarial_weight: float = Field(default=0.02, ge=0)
    """lambda_adv, the weight of the adversarial loss; 0.05 in the paper. 0 with gradient_weight 0 is the network under
    the squared error alone, whose future is blurred."""
    adam_generator: Adam = Adam(lr=1e-3, beta1=0.5, beta2=0.999)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The discriminators' optimiser."""


class VideoPrediction(AdversarialPair):
    """The next frame of the last ones, coarse first, and the one after from that; discriminators see frames in a row at
    each scale.

    It learns from frames in a row at random moments, past and future alike, and goes through the whole future only when
    it samples.
    """

    Config = VideoPredictionSettings
    config: VideoPredictionSettings
    augmentations = ()  # all frames would have to move together
    fields = ("future", "past")
    given = ("past",)
    makes = "frames"
    generator: MultiScalePredictor

    def __init__(self, config: VideoPredictionSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        self.num_past = min(config.num_past, self._frames(data, "past").num_frames)
        self.num_future = self._frames(data, "future").num_frames
        self.num_unrolled = min(config.num_unrolled, self.num_future)
        channels = data.channels
        self.generator = MultiScalePredictor(
            self.num_past * channels, channels, config.num_latents, config.generator_width, config.num_scales
        )
        num_maps = (self.num_past + self.num_unrolled) * channels
        self.discriminator = MultiScaleDiscriminator(
            num_maps, data.image_size, config.discriminator_width, config.num_scales
        )

    @staticmethod
    def _frames(data: DataSpec, name: str) -> Frames:
        spec = data.fields[name]
        assert isinstance(spec, Frames)
        return spec

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

    def _continued(self, past: Sequence[Tensor], num_frames: int, batch: Batch) -> list[list[Tensor]]:
        """For each of the next frames its scales, from the coarsest to the whole size (N, C, H, W).

        Args:
            past: frames (N, C, H, W), P of them.
        """
        frames, found = list(past), []
        for _ in range(num_frames):
            last = torch.cat(frames[-self.num_past :], dim=1)
            found.append(self.generator(last, batch.latent(self.config.num_latents)))
            frames.append(found[-1][-1].clamp(-1, 1))
        return found

    def generate(self, batch: Batch) -> Tensor:
        numbers = torch.arange(batch["past"].shape[1], device=batch["past"].device)[-self.num_past :]
        past = [batch["past"].index_select(1, number).flatten(1, 2) for number in numbers]
        return torch.stack([scales[-1] for scales in self._continued(past, self.num_future, batch)], dim=1).clamp(-1, 1)

    def _moments(self, batch: Batch) -> Tensor:
        """Frames in a row from a random moment of each sample on, (N, P + U, C, H, W)."""

        def chosen() -> Tensor:
            frames = torch.cat([batch["past"], batch["future"]], dim=1)
            num = self.num_past + self.num_unrolled
            first_N = batch.draws.integers(frames.shape[1] - num + 1).to(frames.device, non_blocking=True)
            index = first_N[:, None] + torch.arange(num, device=frames.device)
            return frames.take_along_dim(index[:, :, None, None, None], dim=1)

        return batch.once("moments", chosen)

    def _predicted(self, batch: Batch) -> list[Tensor]:
        """The last U frames of these moments as they are made, at each scale, (N, U C, h, h)."""
        names = [f"scale {number}" for number in range(self.config.num_scales)]
        if names[0] not in batch.kept:
            past = self._moments(batch)[:, : self.num_past].unbind(1)
            frames = self._continued(past, self.num_unrolled, batch)
            batch.kept.update(zip(names, (torch.cat(scale, dim=1) for scale in zip(*frames, strict=True)), strict=True))
        return [batch.kept[name] for name in names]

    def _scaled(self, frames_NTCHW: Tensor) -> list[Tensor]:
        """Frames of the dataset at each scale, as feature maps."""
        maps_NDHW = frames_NTCHW.flatten(1, 2)
        return [scaled(maps_NDHW, number) for number in reversed(range(self.config.num_scales))]

    def _logits(self, following: Sequence[Tensor], batch: Batch) -> Tensor:
        """Of real frames and those that follow, (N, number of scales)."""
        past = self._scaled(self._moments(batch)[:, : self.num_past])
        both = [
            torch.cat([before, after.to(before.dtype)], dim=1) for before, after in zip(past, following, strict=True)
        ]
        logits_NS: Tensor = self.discriminator(both)
        return logits_NS

    def _following(self, batch: Batch) -> list[Tensor]:
        return self._scaled(self._moments(batch)[:, self.num_past :])

    def discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        real = self._logits(self._following(batch), batch)
        fake = self._logits([frames.detach() for frames in self._predicted(batch)], batch)
        batch.observe("score_real", self.logged_score(real))
        batch.observe("score_fake", self.logged_score(fake))
        return {"adversarial": discriminator_cross_entropy(real, fake)}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 7, with the mean over scales of each comparison."""
        made = self._predicted(batch)
        pairs = list(zip(made, self._following(batch), strict=True))
        losses = {"squared": self.config.squared_weight * torch.stack([squared(*pair) for pair in pairs]).mean()}
        if weight := self.config.gradient_weight:
            losses["gradient"] = weight * torch.stack([gradient_difference(*pair) for pair in pairs]).mean()
        if weight := self.config.adversarial_weight:
            losses["adversarial"] = weight * non_saturating(self._logits(made, batch))
        return losses
