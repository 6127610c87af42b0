"""The common part of GANs that learn from two domains whose images are never paired: two generators, one per direction.

Legend: N samples, C channels, H height, W width. a and b are the two domains.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from ..errors import GanpipeError
from .base import Batch, DataSpec, Gan, GanConfig, Losses, Origin, Phase, Player, Progress, View


class UnpairedSettings(GanConfig):
    """Which classes are the domains."""

    class_a: int = Field(default=0, ge=0)
    """Number of the class whose images are domain a."""
    class_b: int = Field(default=1, ge=0)
    """Number of the class whose images are domain b; evaluation measures what is made from a against these."""


class UnpairedGan(Gan):
    """Modules `a_to_b` and `b_to_a` share the player `generators`; each domain has a discriminator (or critic), which
    is a player of its own."""

    config: UnpairedSettings
    needs_power_of_two = True
    augmentations = ("diffaugment",)
    fields = ("b", "a")
    given = ("a",)
    has_latents = False
    directions: ClassVar[Mapping[str, tuple[str, str]]] = {"a_to_b": ("a", "b"), "b_to_a": ("b", "a")}
    discriminator_name: ClassVar[str] = "discriminator"
    """`critic` in the Wasserstein family. The modules are the attributes `discriminator_a` and `discriminator_b`."""
    a_to_b: nn.Module
    b_to_a: nn.Module

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        assert isinstance(config, UnpairedSettings)
        name = cls.__module__.rpartition(".")[2]
        for key, number in (("class_a", config.class_a), ("class_b", config.class_b)):
            if data.label is None or number >= data.num_classes:
                raise GanpipeError(
                    f"gans.{name}.{key}: got {number}, and the dataset has {data.num_classes} classes; {name} "
                    "takes the images of two classes as its domains"
                )
        if config.class_a == config.class_b:
            raise GanpipeError(f"gans.{name}.class_b: got {config.class_b}, as class_a; expected another class")
        assert data.label is not None
        numbers = {"b": config.class_b, "a": config.class_a}
        return {field: View(data.main, data.label, number) for field, number in numbers.items()}

    def discriminator_of(self, domain: str) -> nn.Module:
        """The discriminator (or critic) of `a` or `b`."""
        found: nn.Module = getattr(self, f"{self.discriminator_name}_{domain}")
        return found

    def players(self) -> dict[str, Player]:
        modules = {f"{self.discriminator_name}_{domain}": [self.discriminator_of(domain)] for domain in ("a", "b")}
        modules = {"generators": [self.a_to_b, self.b_to_a], **modules}
        return {
            name: Player(owned, self.config.optimizer_of(name), averaged=name == "generators")
            for name, owned in modules.items()
        }

    def phases(self, progress: Progress) -> list[Phase]:
        return [
            Phase(f"{self.discriminator_name}_a", lambda batch, _: self.discriminator_losses("a", batch)),
            Phase(
                f"{self.discriminator_name}_b",
                lambda batch, _: self.discriminator_losses("b", batch),
                shares_batch=True,
            ),
            Phase("generators", self.generators_losses, shares_batch=True),
        ]

    @abstractmethod
    def discriminator_losses(self, domain: str, batch: Batch) -> Losses:
        """What the discriminator (or critic) of a domain minimises."""

    @abstractmethod
    def generators_losses(self, batch: Batch, progress: Progress) -> Losses:
        """What both generators minimise."""

    def translate(self, images_NCHW: Tensor, direction: str, batch: Batch) -> Tensor:
        """Images of the other domain, (N, C, H, W).

        Args:
            direction: `a_to_b` or `b_to_a`.
        """
        made_NCHW: Tensor = getattr(self, direction)(images_NCHW)
        return made_NCHW

    def made(self, domain: str, batch: Batch) -> Tensor:
        """Images of `domain`, made from those of the other domain; the same in all phases of a batch."""
        if domain == "b":
            return batch.once("b", lambda: self.translate(batch["a"], "a_to_b", batch))
        return batch.once("a", lambda: self.translate(batch["b"], "b_to_a", batch))

    def cycled(self, domain: str, batch: Batch) -> Tensor:
        """The images of `domain`, translated there and back."""
        if domain == "a":
            return self.translate(self.made("b", batch), "b_to_a", batch)
        return self.translate(self.made("a", batch), "a_to_b", batch)

    def scores(self, domain: str, images_NCHW: Tensor, batch: Batch) -> Tensor:
        """What the discriminator (or critic) of `domain` says of images."""
        scores: Tensor = self.discriminator_of(domain)(self.augmentation(images_NCHW, batch))
        return scores

    def real_and_fake_scores(self, domain: str, fake_NCHW: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores of the domain's real images, and of generated ones, which get no gradient; both are logged."""
        real_NCHW = batch[domain]
        real = self.scores(domain, real_NCHW, batch)
        fake = self.scores(domain, fake_NCHW.detach().to(real_NCHW.dtype), batch)
        batch.observe(f"score_real_{domain}", real)
        batch.observe(f"score_fake_{domain}", fake)
        return real, fake

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        if "b" in conditions.fields:
            return self.translate(conditions["b"], "b_to_a", conditions)
        return self.translate(conditions["a"], "a_to_b", conditions)
