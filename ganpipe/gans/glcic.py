"""Globally and locally consistent image completion (Iizuka 2017, doi 10.1145/3072959.3073659, ACM TOG 36(4)).

Legend: N samples, C channels, H = W image size.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ..losses.reconstruction import weighted_squared
from ..networks import inpainting
from .base import Batch, DataSpec, Losses, Phase, Progress
from .completing import CompletingGan, CompletingSettings
from .holes import HoleKind
from .optimizers import Adam


class GlcicSettings(CompletingSettings):
    """Sections 3 and 4; the optimisers are DCGAN's in place of AdaDelta."""

    hole: HoleKind = "block"
    """As in `context_encoder`; the paper's holes are blocks at random places, from 3/8 to 1/2 of the side."""
    num_features: int = Field(default=128, ge=1)
    """Units that each view of the discriminator gives; 1,024 in the paper."""
    completion_stage: float = Field(default=0.3, ge=0, lt=1)
    """T_C: share of the training in which the completion network learns alone, by the squared error; 18 % in the
    paper."""
    discriminator_stage: float = Field(default=0.05, ge=0, lt=1)
    """T_D: share in which the discriminator then learns alone; 2 % in the paper."""
    adversarial_weight: float = Field(default=4e-3, ge=0)
    """alpha, the weight of the adversarial loss; 4e-4 in the paper."""
    adam_generator: Adam = Adam(lr=1e-3, beta1=0.5, beta2=0.999)
    """The completion network's optimiser."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The discriminator's optimiser."""


class Glcic(CompletingGan):
    """A completion network, and a discriminator that sees the whole image and the surroundings of the hole. Three
    stages: the completion network, then the discriminator, then both (algorithm 1)."""

    Config = GlcicSettings
    depends_on_length = True
    config: GlcicSettings
    augmentations = ()  # they would move the image away from its mask

    def __init__(self, config: GlcicSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        self.generator = inpainting.completion(data.channels, config.generator_width)
        self.discriminator = inpainting.GlobalLocalDiscriminator(
            data.image_size, data.channels, config.discriminator_width, config.num_features
        )

    def phases(self, progress: Progress) -> list[Phase]:
        discriminator, generator = super().phases(progress)
        first = self.config.completion_stage
        if progress.fraction < first:
            return [Phase("generator", self.completion_losses)]
        if progress.fraction < first + self.config.discriminator_stage:
            return [discriminator]
        return [discriminator, generator]

    def discriminate(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        logits_N: Tensor = self.discriminator(self.augmentation(images_NCHW, batch), batch["mask"])
        return logits_N

    def completion_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 2: the squared error within the hole."""
        return {"completion": weighted_squared(self._generated(batch), batch["image"], batch["mask"] > 0)}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 4."""
        adversarial = super().generator_losses(batch, progress)["adversarial"]
        completion = self.completion_losses(batch, progress)
        return {**completion, "adversarial": self.config.adversarial_weight * adversarial}
