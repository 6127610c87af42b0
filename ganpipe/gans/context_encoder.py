"""Context encoders: feature learning by inpainting (Pathak 2016, arXiv 1604.07379).

Legend: N samples, C channels, H = W image size.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..losses.reconstruction import weighted_squared
from ..networks import dcgan, inpainting
from .base import Batch, DataSpec, Losses, Phase, Progress
from .completing import CompletingGan, CompletingSettings
from .optimizers import Adam


class ContextEncoderSettings(CompletingSettings):
    """Sections 3.2 and 3.3; the optimisers are DCGAN's."""

    reconstruction_weight: float = Field(default=0.98, ge=0)
    """lambda_rec: 0.999 in the paper, whose holes are larger beside their images."""
    adversarial_weight: float = Field(default=0.005, ge=0)
    """lambda_adv: 0.001 in the paper. 0 is the network without a discriminator, for a comparison."""
    pretraining: float = Field(default=0.75, ge=0, le=1)
    """Share of the training in which the network learns by the reconstruction alone; 0 in the paper, which trained for
    14 hours on a GPU."""
    overlap: int = Field(default=2, ge=0)
    """Width in pixels of the surroundings of the hole that the network must make again; 7 in the paper, at 128
    pixels."""
    overlap_weight: float = Field(default=10.0, ge=0)
    """Weight of these surroundings beside the hole's."""
    adam_generator: Adam = Adam(lr=1e-3, beta1=0.5, beta2=0.999)
    """The generator's optimiser: ten times the discriminator's rate in the paper."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The discriminator's optimiser."""


class ContextEncoder(CompletingGan):
    """An encoder, a channel-wise fully connected layer and a decoder; the discriminator sees images, and no mask."""

    Config = ContextEncoderSettings
    depends_on_length = True
    config: ContextEncoderSettings

    def __init__(self, config: ContextEncoderSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels = data.image_size, data.channels
        self.generator = inpainting.context_encoder(size, channels, config.generator_width)
        self.discriminator = dcgan.discriminator(size, channels, config.discriminator_width)
        dcgan.initialise(self)

    def stage(self, progress: Progress) -> int:
        return int(progress.fraction >= self.config.pretraining) if self.config.adversarial_weight else 0

    def phases(self, progress: Progress) -> list[Phase]:
        if self.stage(progress) == 0:
            return [Phase("generator", self.generator_losses)]
        return super().phases(progress)

    def _weights(self, batch: Batch) -> Tensor:
        """How much a pixel's error counts, (N, 1, H, W): 1 in the hole, more around it, 0 elsewhere."""
        hole_N1HW, width = (batch["mask"] > 0).to(batch["mask"].dtype), self.config.overlap
        around_N1HW = F.max_pool2d(hole_N1HW, 2 * width + 1, stride=1, padding=width) - hole_N1HW
        return hole_N1HW + self.config.overlap_weight * around_N1HW

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 3."""
        distance = weighted_squared(self.made(batch), batch["image"], self._weights(batch))
        losses = {"reconstruction": self.config.reconstruction_weight * distance}
        if self.stage(progress) == 1:
            adversarial = super().generator_losses(batch, progress)["adversarial"]
            losses["adversarial"] = self.config.adversarial_weight * adversarial
        return losses
