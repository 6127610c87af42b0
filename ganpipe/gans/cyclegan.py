"""CycleGAN: unpaired image-to-image translation with cycle-consistent networks (Zhu 2017, arXiv 1703.10593).

Legend: N samples, C channels, H height, W width. a and b are two domains, whose images are never paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from ..errors import GanpipeError
from ..losses.adversarial import least_squares_discriminator, least_squares_generator
from ..losses.reconstruction import l1
from ..networks import dcgan, resnet, unet
from .base import Batch, DataSpec, Gan, GanConfig, Losses, Origin, Phase, Player, Progress, View, linear_decay
from .optimizers import Adam
from .pools import PoolSpec


class CycleganSettings(GanConfig):
    """Section 4 and appendix 7."""

    class_a: int = Field(default=0, ge=0)
    """Number of the class whose images are domain a."""
    class_b: int = Field(default=1, ge=0)
    """Number of the class whose images are domain b; evaluation measures what is made from a against these."""
    generator_width: int = Field(default=16, ge=1)
    """Feature maps of both generators' first layer; 64 in the paper, with which two CPU cores take seconds per step."""
    num_blocks: int = Field(default=4, ge=0)
    """Residual blocks of both generators; in the paper 6 at 128 pixels, and 9 at 256."""
    discriminator_width: int = Field(default=32, ge=1)
    """Feature maps of both discriminators' first layer; 64 in the paper."""
    cycle_weight: float = Field(default=10.0, ge=0)
    """lambda, the weight of the L1 distance between an image and its translation there and back."""
    identity_weight: float = Field(default=0.5, ge=0)
    """Weight, as a multiple of cycle_weight, of the L1 distance between an image and what its own domain's generator
    makes of it."""
    pool_size: int = Field(default=50, ge=1)
    """Earlier generated images of a domain, some of which its discriminator is shown again."""
    decay_from: float = Field(default=0.5, ge=0, le=1)
    """Share of the training after which learning rates fall linearly, to zero at its end."""
    adam_generators: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The optimiser of both generators."""
    adam_discriminator_a: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The optimiser of the discriminator of domain a."""
    adam_discriminator_b: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The optimiser of the discriminator of domain b."""


class Cyclegan(Gan):
    """Two generators, one per direction; an image that is translated there and back has to be the original again."""

    Config = CycleganSettings
    config: CycleganSettings
    needs_power_of_two = True
    augmentations = ("diffaugment",)
    fields = ("b", "a")
    given = ("a",)
    has_latents = False
    directions: ClassVar[Mapping[str, tuple[str, str]]] = {"a_to_b": ("a", "b"), "b_to_a": ("b", "a")}

    def __init__(self, config: CycleganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels = data.image_size, data.channels
        self.a_to_b = resnet.generator(channels, config.generator_width, config.num_blocks)
        self.b_to_a = resnet.generator(channels, config.generator_width, config.num_blocks)
        self.discriminator_a = unet.patch_discriminator(size, channels, config.discriminator_width)
        self.discriminator_b = unet.patch_discriminator(size, channels, config.discriminator_width)
        dcgan.initialise(self)

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        assert isinstance(config, CycleganSettings)
        for key, number in (("class_a", config.class_a), ("class_b", config.class_b)):
            if data.label is None or number >= data.num_classes:
                raise GanpipeError(
                    f"gans.cyclegan.{key}: got {number}, and the dataset has {data.num_classes} classes; cyclegan "
                    "takes the images of two classes as its domains"
                )
        if config.class_a == config.class_b:
            raise GanpipeError(f"gans.cyclegan.class_b: got {config.class_b}, as class_a; expected another class")
        assert data.label is not None
        numbers = {"b": config.class_b, "a": config.class_a}
        return {name: View(data.main, data.label, number) for name, number in numbers.items()}

    def replay_pools(self) -> dict[str, PoolSpec]:
        spec = PoolSpec(self.config.pool_size, self.data.image_shape)
        return {"a": spec, "b": spec}

    def players(self) -> dict[str, Player]:
        decay = linear_decay(self.config.decay_from)

        def player(modules: list[nn.Module], name: str, averaged: bool = False) -> Player:
            return Player(modules, self.config.optimizer_of(name), averaged, over_time=decay)

        return {
            "generators": player([self.a_to_b, self.b_to_a], "generators", averaged=True),
            "discriminator_a": player([self.discriminator_a], "discriminator_a"),
            "discriminator_b": player([self.discriminator_b], "discriminator_b"),
        }

    def phases(self, progress: Progress) -> list[Phase]:
        return [
            Phase("discriminator_a", lambda batch, _: self._discriminator_losses("a", batch)),
            Phase("discriminator_b", lambda batch, _: self._discriminator_losses("b", batch), shares_batch=True),
            Phase("generators", self.generators_losses, shares_batch=True),
        ]

    def _made(self, domain: str, batch: Batch) -> Tensor:
        """Images of `domain`, made from those of the other domain."""
        if domain == "b":
            return batch.once("b", lambda: self.a_to_b(batch["a"]))
        return batch.once("a", lambda: self.b_to_a(batch["b"]))

    def _scores(self, domain: str, images_NCHW: Tensor, batch: Batch) -> Tensor:
        discriminator = self.discriminator_a if domain == "a" else self.discriminator_b
        scores: Tensor = discriminator(self.augmentation(images_NCHW, batch))
        return scores

    def generators_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 3, and the identity loss of section 5.2."""
        a, b = batch["a"], batch["b"]
        made_a, made_b = self._made("a", batch), self._made("b", batch)
        cycle = l1(self.b_to_a(made_b), a) + l1(self.a_to_b(made_a), b)
        losses = {
            "adversarial_a": least_squares_generator(self._scores("a", made_a, batch)),
            "adversarial_b": least_squares_generator(self._scores("b", made_b, batch)),
            "cycle": self.config.cycle_weight * cycle,
        }
        if weight := self.config.cycle_weight * self.config.identity_weight:
            losses["identity"] = weight * (l1(self.b_to_a(a), a) + l1(self.a_to_b(b), b))
        return losses

    def _discriminator_losses(self, domain: str, batch: Batch) -> Losses:
        made_NCHW = self._made(domain, batch).detach()
        if domain in self.pools:
            made_NCHW = self.pools[domain].exchange(made_NCHW, batch.draws, batch.first_row)
        real_scores = self._scores(domain, batch[domain], batch)
        fake_scores = self._scores(domain, made_NCHW.to(batch[domain].dtype), batch)
        batch.observe(f"score_real_{domain}", real_scores)
        batch.observe(f"score_fake_{domain}", fake_scores)
        # Halved, which slows the discriminators down (appendix 7.1).
        return {"adversarial": least_squares_discriminator(real_scores, fake_scores) / 2}

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        images_NCHW: Tensor = self.b_to_a(conditions["b"]) if "b" in conditions.fields else self.a_to_b(conditions["a"])
        return images_NCHW
