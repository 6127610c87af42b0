"""DeblurGAN: blind motion deblurring using conditional adversarial networks (Kupyn 2017, arXiv 1711.07064).

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from ..losses.adversarial import wasserstein_critic, wasserstein_generator
from ..losses.penalties import gradient_penalty, input_gradient
from ..losses.reconstruction import l1
from ..networks import resnet, unet
from . import perceptual
from .base import Batch, DataSpec, Derived, GanConfig, Losses, Origin, Phase, Player, Progress, Stored, decaying
from .degradations import Moved, Noisy
from .optimizers import Adam
from .pair import AdversarialPair
from .perceptual import content_distance


class DeblurganSettings(GanConfig):
    """Sections 3 and 5, in smaller widths."""

    degradation: Literal["motion", "noise"] = "motion"
    """What is done to the images that are given: blurred by a moving camera, as in the paper, or noise."""
    motion_length: float = Field(default=0.25, gt=0, le=1)
    """motion: the longest path of the camera, as a share of an image's side."""
    noise: float = Field(default=0.1, gt=0, le=1)
    """noise: its standard deviation, as a share of the range of values."""
    generator_width: int = Field(default=16, ge=1)
    """Feature maps of the generator's first layer; 64 in the paper."""
    num_blocks: int = Field(default=4, ge=0)
    """Residual blocks of the generator; 9 in the paper, at 256 pixels."""
    critic_width: int = Field(default=16, ge=1)
    """Feature maps of the critic's first layer; 64 in the paper."""
    content_weight: float = Field(default=3e-4, ge=0)
    """Weight of the distance of a classifier's feature maps. The paper's 100 is for VGG-19 and the adversarial loss as
    it is; here the pixels' distance sets the scale."""
    pixel_weight: float = Field(default=1.0, ge=0)
    """Weight of the mean absolute error beside it; 0 in the paper, which reports colours that are off without it."""
    adversarial_weight: float = Field(default=4e-3, ge=0)
    """Weight of the adversarial loss; 0 is the generator without a critic, for a comparison."""
    penalty_weight: float = Field(default=10.0, ge=0)
    """Weight of the critic's gradient penalty."""
    num_critic_updates: int = Field(default=1, ge=1)
    """Critic updates per update of the generator, each on a fresh batch; 5 in the paper."""
    decay_from: float = Field(default=0.5, ge=0, le=1)
    """Share of the training after which learning rates fall linearly, to zero at its end."""
    adam_generator: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The generator's optimiser; 1e-4 in the paper, for 300 epochs."""
    adam_critic: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The critic's optimiser."""


class Deblurgan(AdversarialPair):
    """A generator that adds a correction to the image that it is given, against a Wasserstein critic with a gradient
    penalty, and a perceptual loss.

    Departs from the paper in the network of the perceptual loss, and in the pixels' error beside it (see SRGAN).
    """

    Config = DeblurganSettings
    depends_on_length = True
    config: DeblurganSettings
    needs_power_of_two = True
    discriminator_name = "critic"
    augmentations = ("diffaugment",)
    fields = ("image", "source")
    given = ("source",)
    has_latents = False
    separate_passes = False
    shares_images = False
    discriminator_loss = staticmethod(wasserstein_critic)
    generator_loss = staticmethod(wasserstein_generator)
    logged_score = staticmethod(nn.Identity())

    def __init__(self, config: DeblurganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels = data.image_size, data.channels
        self.generator = resnet.generator(channels, config.generator_width, config.num_blocks, is_correction=True)
        self.critic = unet.patch_discriminator(size, channels, config.critic_width, has_norm=False)

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        assert isinstance(config, DeblurganSettings)
        degraded = Moved(config.motion_length) if config.degradation == "motion" else Noisy(config.noise)
        return {"image": Stored(data.main), "source": Derived(data.main, degraded, data.image)}

    def frozen_networks(self) -> dict[str, Callable[[], nn.Module]]:
        return perceptual.classifier() if self.config.content_weight else {}

    def players(self) -> dict[str, Player]:
        players = decaying(super().players(), self.config.decay_from)
        return {**players, "critic": dataclasses.replace(players["critic"], compiled=False)}

    def phases(self, progress: Progress) -> list[Phase]:
        generator = Phase("generator", self.generator_losses)
        if not self.config.adversarial_weight:
            return [generator]
        return [Phase("critic", self.discriminator_losses, self.config.num_critic_updates), generator]

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW: Tensor = self.generator(batch["source"])
        return images_NCHW

    def discriminator_losses_on(self, fake_NCHW: Tensor, batch: Batch) -> Losses:
        real_NCHW = batch["image"]
        penalty = gradient_penalty(partial(input_gradient, self.critic), real_NCHW, fake_NCHW, batch.mixing())
        losses = super().discriminator_losses_on(fake_NCHW, batch)
        return {**losses, "gradient_penalty": self.config.penalty_weight * penalty}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 2, and the pixels' distance."""
        made, wanted = self._generated(batch), batch["image"]
        losses = {"pixels": self.config.pixel_weight * l1(made, wanted)}
        if weight := self.config.content_weight:
            losses["content"] = weight * content_distance(self.frozen, made, wanted)
        if weight := self.config.adversarial_weight:
            losses["adversarial"] = weight * super().generator_losses(batch, progress)["adversarial"]
        return losses
