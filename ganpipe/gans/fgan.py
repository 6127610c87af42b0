"""f-GAN: training generative neural samplers by variational divergence minimisation (Nowozin 2016, arXiv 1606.00709).

Legend: N samples, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from ..losses.adversarial import wide
from ..losses.divergences import table
from ..networks import dcgan
from .base import Batch, DataSpec, GanConfig
from .optimizers import Adam
from .pair import AdversarialPair


class FganSettings(GanConfig):
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
    ] = "squared_hellinger"
    """Which divergence of the data from the generator is minimised."""
    pi: float = Field(default=0.5, gt=0, lt=1)
    """The weight of the data in the weighted Jensen-Shannon divergence."""
    generator_loss: Literal["divergence", "non_saturating"] = "non_saturating"
    """The bound on the divergence itself, or -E[T(G(z))], whose gradient does not vanish early (section 3.2)."""
    num_latents: int = Field(default=100, ge=1)
    """Z, the size of the latent vector, uniform in [-1, 1]."""
    generator_width: int = Field(default=64, ge=1)
    """Feature maps before the generator's last layer; they double towards the latent, up to eightfold."""
    discriminator_width: int = Field(default=64, ge=1)
    """Feature maps after the discriminator's first layer; they double towards its output, up to eightfold."""
    adam_generator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The discriminator's optimiser."""


class Fgan(AdversarialPair):
    """The discriminator is the variational function T of a lower bound on an f-divergence."""

    Config = FganSettings
    config: FganSettings
    needs_power_of_two = True

    def __init__(self, config: FganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        self.generator = dcgan.generator(config.num_latents, data.image_size, data.channels, config.generator_width)
        self.discriminator = dcgan.discriminator(data.image_size, data.channels, config.discriminator_width)
        dcgan.initialise(self)
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

    def generate(self, batch: Batch) -> Tensor:
        images_NCHW: Tensor = self.generator(batch.latent(self.config.num_latents, "uniform"))
        return images_NCHW
