"""StarGAN: unified GANs for multi-domain image-to-image translation (Choi 2018, arXiv 1711.09020).

Legend: N samples, K domains, C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..losses.adversarial import wasserstein_critic, wasserstein_generator, wide
from ..losses.penalties import gradient_penalty, input_gradient
from ..losses.reconstruction import l1
from ..networks.stargan import Critic, Generator
from .base import Batch, DataSpec, GanConfig, Losses, Origin, Phase, Player, Progress, decaying
from .optimizers import Adam
from .pair import AdversarialPair
from .relabelled import origins_with_wanted


class StarganSettings(GanConfig):
    """Sections 3 and 5.4, in smaller widths."""

    generator_width: int = Field(default=16, ge=1)
    """Feature maps of the generator's first layer; 64 in the paper."""
    num_blocks: int = Field(default=3, ge=0)
    """Residual blocks of the generator; 6 in the paper, at 128 pixels."""
    is_correction: bool = True
    """Whether the generator makes a correction of the image, as in DeblurGAN, and not the image itself, as in the
    paper: a training of minutes then begins at images that are whole."""
    critic_width: int = Field(default=32, ge=1)
    """Feature maps of the critic's first layer; 64 in the paper."""
    class_weight: float = Field(default=3.0, ge=0)
    """lambda_cls, the weight of the classification of domains; 1 in the paper, with which the critic of a training of
    minutes hardly learns to tell them."""
    cycle_weight: float = Field(default=10.0, ge=0)
    """lambda_rec, the weight of the L1 distance between an image and its translation there and back."""
    penalty_weight: float = Field(default=10.0, ge=0)
    """lambda_gp, the weight of the critic's gradient penalty."""
    num_critic_updates: int = Field(default=1, ge=1)
    """Critic updates per update of the generator, each on a fresh batch; 5 in the paper."""
    decay_from: float = Field(default=0.5, ge=0, le=1)
    """Share of the training after which learning rates fall linearly, to zero at its end."""
    adam_generator: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The generator's optimiser; 1e-4 in the paper."""
    adam_critic: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The critic's optimiser; 1e-4 in the paper."""


class Stargan(AdversarialPair):
    """One generator for all domains: it is given an image and the domain that it shall have.

    It departs from the paper in two ways, without which a training of minutes ends in images that deceive the critic
    and nobody else. The domain enters by the norms. The critic tells the domains of real and of made images apart, 2 K
    classes (after Hou 2021, arXiv 2107.10060): a pattern that stands for a domain in made images only is then a sign of
    a made image.
    """

    Config = StarganSettings
    depends_on_length = True
    config: StarganSettings
    needs_power_of_two = True
    discriminator_name = "critic"
    augmentations = ("diffaugment",)
    fields = ("image", "domain", "label")
    given = ("image", "domain")
    has_latents = False
    shares_images = False
    critic: Critic

    def __init__(self, config: StarganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, num_domains = data.image_size, data.channels, data.num_classes
        self.generator = Generator(
            channels, config.generator_width, config.num_blocks, num_domains, config.is_correction
        )
        self.critic = Critic(size, channels, config.critic_width, 2 * num_domains)

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        return origins_with_wanted(data, "domain")

    def players(self) -> dict[str, Player]:
        players = decaying(super().players(), self.config.decay_from)
        return {**players, "critic": dataclasses.replace(players["critic"], compiled=False)}

    def phases(self, progress: Progress) -> list[Phase]:
        return [
            Phase("critic", self.discriminator_losses, num_updates=self.config.num_critic_updates),
            Phase("generator", self.generator_losses),
        ]

    def _translate(self, images_NCHW: Tensor, domain_N: Tensor) -> Tensor:
        """Images of these domains, (N, C, H, W)."""
        made_NCHW: Tensor = self.generator(images_NCHW, domain_N)
        return made_NCHW

    def generate(self, batch: Batch) -> Tensor:
        return self._translate(batch["image"], batch["domain"])

    def _classification(self, logits_NK: Tensor, domain_N: Tensor) -> Tensor:
        return self.config.class_weight * F.cross_entropy(wide(logits_NK), domain_N)

    def discriminator_losses_on(self, fake_NCHW: Tensor, batch: Batch) -> Losses:
        """Equations 2, 6 and 8, the second with 2 K classes, of which the latter K are those of made images."""
        real_NCHW = self.augmentation(batch["image"], batch)
        fake_NCHW = self.augmentation(fake_NCHW.to(real_NCHW.dtype), batch)
        (real, real_NK), (fake, fake_NK) = self.critic(real_NCHW), self.critic(fake_NCHW)
        batch.observe("score_real", real)
        batch.observe("score_fake", fake)
        batch.observe("real_classified", (real_NK.argmax(1) == batch["label"]).float())

        def gradient(images_NCHW: Tensor) -> Tensor:
            return input_gradient(lambda images: self.critic(images)[0].mean((1, 2, 3)), images_NCHW)

        penalty = gradient_penalty(gradient, real_NCHW, fake_NCHW, batch.mixing())
        return {
            "adversarial": wasserstein_critic(real, fake),
            "class": self._classification(real_NK, batch["label"]),
            "class_of_made": self._classification(fake_NK, self.data.num_classes + batch["domain"]),
            "gradient_penalty": self.config.penalty_weight * penalty,
        }

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equations 3, 4 and 7."""
        made_NCHW = self._generated(batch)
        scores, logits_NK = self.critic(self.augmentation(made_NCHW, batch))
        batch.observe("fake_classified", (logits_NK.argmax(1) == batch["domain"]).float())
        back_NCHW = self._translate(made_NCHW, batch["label"])
        return {
            "adversarial": wasserstein_generator(scores),
            "class": self._classification(logits_NK, batch["domain"]),
            "cycle": self.config.cycle_weight * l1(back_NCHW, batch["image"]),
        }
