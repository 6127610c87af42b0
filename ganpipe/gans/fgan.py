"""f-GAN: generative neural samplers by variational divergence minimisation (Nowozin 2016, arXiv 1606.00709)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from ..losses.adversarial import wide
from ..losses.divergences import table
from .base import DataSpec
from .convolutional import ConvolutionalPair, ConvolutionalSettings


class FganSettings(ConvolutionalSettings):
    """The divergence, and DCGAN's networks as in section 4.2."""

    divergence: Literal[
        "total_variation",
        "kl",
        "reverse_kl",
        "pearson_chi_squared",
        "neyman_chi_squared",
        "squared_hellinger",
        "jeffrey",
        "jensen_shannon",
        "weighted_jensen_shannon",
        "gan",
    ] = "jensen_shannon"
    """Which divergence of the data from the generator is minimised. Squared Hellinger's bound has exponentials of both
    signs: on MNIST its training collapsed with the other defaults."""
    pi: float = Field(default=0.5, gt=0, lt=1)
    """The weight of the data in the weighted Jensen-Shannon divergence."""
    generator_loss: Literal["divergence", "non_saturating"] = "non_saturating"
    """The bound on the divergence itself, or -E[T(G(z))], whose gradient does not vanish early (section 3.2)."""


class Fgan(ConvolutionalPair):
    """The discriminator is the variational function T of a lower bound on an f-divergence."""

    Config = FganSettings
    config: FganSettings
    augmentations = ("diffaugment",)  # an output says real above f'(1), not above 0

    def __init__(self, config: FganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        divergence = self.divergence = table(config.pi)[config.divergence]
        self.discriminator_loss = lambda real_v, fake_v: -divergence.bound(real_v, fake_v)
        of_generated = {
            "divergence": divergence.conjugate_of_activation,
            "non_saturating": divergence.activation,
        }[config.generator_loss]
        self.generator_loss = lambda fake_v: -of_generated(wide(fake_v)).mean()

    def logged_score(self, v: Tensor) -> Tensor:
        """1 where T(x) says real, which is above f'(1), else 0."""
        return (self.divergence.activation(wide(v)) > self.divergence.threshold).float()
