"""A small generator that learns from a large one, with soft targets (Hinton 2015, arXiv 1503.02531), in the manner of
Aguinaldo 2019 (arXiv 1902.00159).

Legend: N samples, Z latent size, K classes, C channels, H = W image size.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..losses.adversarial import discriminator_cross_entropy, non_saturating, wide
from ..losses.reconstruction import squared
from ..losses.soft_targets import soft_cross_entropy, soft_divergence
from ..networks import dcgan
from .base import Batch, DataSpec, Gan, GanConfig, Losses, Phase, Player, Progress, decaying
from .optimizers import Adam


class DistillationSettings(GanConfig):
    """The teacher is an AC-GAN with DCGAN's networks."""

    num_latents: int = Field(default=100, ge=1)
    """Z, the size of the latent vector of both generators, standard normal."""
    teacher_width: int = Field(default=64, ge=1)
    """Feature maps before the last layer of the teacher."""
    generator_width: int = Field(default=16, ge=1)
    """Feature maps before the last layer of the student, which is what is released."""
    discriminator_width: int = Field(default=64, ge=1)
    """Feature maps after the first layer of the teacher's discriminator, which also tells the class."""
    teaching: float = Field(default=0.5, gt=0, lt=1)
    """Share of the training in which the teacher learns; then it rests, and the student learns from it."""
    soft_loss: Literal["divergence", "cross_entropy"] = "divergence"
    """How the discriminator's classes of the student's images are compared with those of the teacher's images."""
    temperature: float = Field(default=4.0, gt=0)
    """T: a higher temperature lets small probabilities count more."""
    soft_weight: float = Field(default=0.5, ge=0)
    """Weight of the comparison of classes."""
    pixel_weight: float = Field(default=20.0, ge=0)
    """Weight of the mean squared error of the student's images, of the same latents and classes."""
    decay_from: float = Field(default=0.6, ge=0, le=1)
    """Share of a stage after which its learning rates fall linearly, to zero at its end. 1: they do not."""
    adam_teacher: Adam = Adam(lr=2e-3, beta1=0.5, beta2=0.999)
    """The teacher's optimiser."""
    adam_generator: Adam = Adam(lr=2e-3, beta1=0.5, beta2=0.999)
    """The student's optimiser."""
    adam_discriminator: Adam = Adam(lr=4e-4, beta1=0.5, beta2=0.999)
    """The optimiser of the discriminator."""


class Distillation(Gan):
    """The student makes of each latent and class what the teacher makes of them: pixel by pixel, with the same classes
    by the discriminator's judgement, and it must pass as real."""

    Config = DistillationSettings
    depends_on_length = True
    config: DistillationSettings
    needs_power_of_two = True
    augmentations = ("diffaugment", "ada")
    fields = ("image", "label")
    given = ("label",)

    def __init__(self, config: DistillationSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, num_inputs = data.image_size, data.channels, config.num_latents + data.num_classes
        self.teacher = dcgan.generator(num_inputs, size, channels, config.teacher_width)
        self.generator = dcgan.generator(num_inputs, size, channels, config.generator_width)
        self.discriminator = dcgan.discriminator(
            size, channels, config.discriminator_width, num_outputs=1 + data.num_classes
        )
        dcgan.initialise(self)

    def stage(self, progress: Progress) -> int:
        """0: the teacher learns. 1: the student."""
        return int(progress.fraction >= self.config.teaching)

    def players(self) -> dict[str, Player]:
        settings, teaching = self.config.optimizer_of, self.config.teaching
        players = {
            "teacher": Player([self.teacher], settings("teacher")),
            "generator": Player([self.generator], settings("generator"), averaged=True, begins=teaching),
            "discriminator": Player([self.discriminator], settings("discriminator")),
        }
        return decaying(players, self.config.decay_from, self._share_of_stage)

    def _share_of_stage(self, progress: Progress) -> float:
        """How much of this stage is done, in [0, 1]."""
        done, teaching = progress.fraction, self.config.teaching
        return (done - teaching) / (1 - teaching) if self.stage(progress) else done / teaching

    def phases(self, progress: Progress) -> list[Phase]:
        learning = ("teacher", "generator")[self.stage(progress)]
        losses = (self.teacher_losses, self.student_losses)[self.stage(progress)]
        return [Phase("discriminator", self.discriminator_losses), Phase(learning, losses, shares_batch=True)]

    def _inputs(self, batch: Batch) -> Tensor:
        """Latents and classes, which both generators are given, (N, Z + K)."""
        label_NK = F.one_hot(batch["label"], self.data.num_classes).to(batch.dtype)
        return batch.once("inputs", lambda: torch.cat([batch.latent(self.config.num_latents), label_NK], dim=1))

    def _made(self, batch: Batch, progress: Progress) -> Tensor:
        """Images of the generator that learns in this stage, (N, C, H, W)."""
        generator = (self.teacher, self.generator)[self.stage(progress)]
        return batch.once("made", lambda: generator(self._inputs(batch)))

    def _logits(self, images_NCHW: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of being real (N,), and of the classes (N, K)."""
        outputs: Tensor = self.discriminator(self.augmentation(images_NCHW, batch))
        return outputs[:, 0], outputs[:, 1:]

    def discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        (real_N, real_NK), (fake_N, fake_NK) = (
            self._logits(images.detach(), batch) for images in (batch["image"], self._made(batch, progress))
        )
        self.augmentation.observe(real_N, batch)
        batch.observe("score_real", torch.sigmoid(real_N))
        batch.observe("score_fake", torch.sigmoid(fake_N))
        return {
            "adversarial": discriminator_cross_entropy(real_N, fake_N),
            "class_real": F.cross_entropy(wide(real_NK), batch["label"]),
            "class_fake": F.cross_entropy(wide(fake_NK), batch["label"]),
        }

    def teacher_losses(self, batch: Batch, progress: Progress) -> Losses:
        """AC-GAN's (Odena 2016, arXiv 1610.09585)."""
        fake_N, fake_NK = self._logits(self._made(batch, progress), batch)
        return {"adversarial": non_saturating(fake_N), "class": F.cross_entropy(wide(fake_NK), batch["label"])}

    def student_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Soft targets, pixels, and the adversarial game."""
        made_NCHW = self._made(batch, progress)
        with torch.no_grad():
            wanted_NCHW = self.teacher(self._inputs(batch))
            _, wanted_NK = self._logits(wanted_NCHW, batch)
        fake_N, fake_NK = self._logits(made_NCHW, batch)
        soft_loss = soft_divergence if self.config.soft_loss == "divergence" else soft_cross_entropy
        return {
            "adversarial": non_saturating(fake_N),
            "soft_targets": self.config.soft_weight * soft_loss(fake_NK, wanted_NK, self.config.temperature),
            "pixels": self.config.pixel_weight * squared(made_NCHW, wanted_NCHW),
        }

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        # The student alone, because the teacher is in no package: the student's first images come in the second stage.
        images_NCHW: Tensor = self.generator(self._inputs(conditions))
        return images_NCHW
