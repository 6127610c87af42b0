"""AC-GAN: conditional image synthesis with auxiliary classifier GANs (Odena 2016, arXiv 1610.09585).

Legend: N samples, Z latent size, K classes, C channels, H = W image size.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..losses.adversarial import wide
from ..networks import dcgan
from .base import Batch, DataSpec, Losses, Player, Progress, decaying
from .convolutional import ConvolutionalSettings
from .optimizers import Adam
from .pair import AdversarialPair


class AcganSettings(ConvolutionalSettings):
    """DCGAN's networks, without the paper's dropout. The paper's learning rate (appendix A) is 2e-4 for both players
    and constant; here rates are higher, the generator's above all, and fall at the end, because a short training learns
    more with them (docs/recipes.md). The class joins the latent, standard normal, as K further numbers."""

    class_weight: float = Field(default=1.0, ge=0)
    """Weight of L_C, the classifier's part of what both players minimise; 1 in the paper."""
    decay_from: float = Field(default=0.6, ge=0, le=1)
    """Share of the training after which learning rates fall linearly, to zero at its end. 1: they do not."""
    adam_generator: Adam = Adam(lr=2e-3, beta1=0.5, beta2=0.999)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=4e-4, beta1=0.5, beta2=0.999)
    """The discriminator's optimiser."""


class Acgan(AdversarialPair):
    """The discriminator does not see the label: it tells the class of real and of generated images (section 4).

    The first layer of the generator, on the one-hot label, is an embedding of the classes.
    """

    Config = AcganSettings
    depends_on_length = True
    config: AcganSettings
    needs_power_of_two = True
    fields = ("image", "label")
    given = ("label",)

    def __init__(self, config: AcganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, num_inputs = data.image_size, data.channels, config.num_latents + data.num_classes
        self.generator = dcgan.generator(num_inputs, size, channels, config.generator_width)
        self.discriminator = dcgan.discriminator(
            size, channels, config.discriminator_width, num_outputs=1 + data.num_classes
        )
        dcgan.initialise(self)

    def players(self) -> dict[str, Player]:
        return decaying(super().players(), self.config.decay_from)

    def generate(self, batch: Batch) -> Tensor:
        label_NK = F.one_hot(batch["label"], self.data.num_classes).to(batch.dtype)
        images_NCHW: Tensor = self.generator(torch.cat([batch.latent(self.config.num_latents), label_NK], dim=1))
        return images_NCHW

    def discriminate(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        return self._logits(images_NCHW, batch)[0]

    def _logits(self, images_NCHW: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """P(S | X) and P(C | X) as logits: (N,) for real, (N, K) for the classes."""
        outputs: Tensor = self.discriminator(self.augmentation(images_NCHW, batch))
        return outputs[:, 0], outputs[:, 1:]

    def _classification(self, logits_NK: Tensor, batch: Batch) -> Tensor:
        """-L_C of equation 3 for one kind of images, times its weight."""
        return self.config.class_weight * F.cross_entropy(wide(logits_NK), batch["label"])

    def discriminator_losses_on(self, fake_NCHW: Tensor, batch: Batch) -> Losses:
        (real_N, real_NK), (fake_N, fake_NK) = (
            self._logits(images_NCHW, batch) for images_NCHW in (batch["image"], fake_NCHW)
        )
        self.augmentation.observe(real_N, batch)
        batch.observe("score_real", self.logged_score(real_N))
        batch.observe("score_fake", self.logged_score(fake_N))
        batch.observe("real_classified", (real_NK.argmax(1) == batch["label"]).float())
        batch.observe("fake_classified", (fake_NK.argmax(1) == batch["label"]).float())
        return {
            "adversarial": self.discriminator_loss(real_N, fake_N),
            "class_real": self._classification(real_NK, batch),
            "class_fake": self._classification(fake_NK, batch),
        }

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        fake_N, fake_NK = self._logits(self._generated(batch), batch)
        return {"adversarial": self.generator_loss(fake_N), "class": self._classification(fake_NK, batch)}
