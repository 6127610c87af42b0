"""CycleGAN: unpaired image-to-image translation with cycle-consistent networks (Zhu 2017, arXiv 1703.10593).

Legend: N samples, C channels, H height, W width. a and b are two domains, whose images are never paired.
"""

from __future__ import annotations

from pydantic import Field

from ..losses.adversarial import least_squares_discriminator, least_squares_generator
from ..losses.reconstruction import l1
from ..networks import dcgan, resnet, unet
from .base import Batch, DataSpec, Losses, Player, Progress, decaying
from .optimizers import Adam
from .pools import PoolSpec
from .unpaired import UnpairedGan, UnpairedSettings


class CycleganSettings(UnpairedSettings):
    """Section 4 and appendix 7."""

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


class Cyclegan(UnpairedGan):
    """An image that is translated there and back has to be the original again."""

    Config = CycleganSettings
    depends_on_length = True
    config: CycleganSettings

    def __init__(self, config: CycleganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels = data.image_size, data.channels
        self.a_to_b = resnet.generator(channels, config.generator_width, config.num_blocks)
        self.b_to_a = resnet.generator(channels, config.generator_width, config.num_blocks)
        self.discriminator_a = unet.patch_discriminator(size, channels, config.discriminator_width)
        self.discriminator_b = unet.patch_discriminator(size, channels, config.discriminator_width)
        dcgan.initialise(self)

    def replay_pools(self) -> dict[str, PoolSpec]:
        spec = PoolSpec(self.config.pool_size, self.data.image_shape)
        return {"a": spec, "b": spec}

    def players(self) -> dict[str, Player]:
        return decaying(super().players(), self.config.decay_from)

    def generators_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 3, and the identity loss of section 5.2."""
        a, b = batch["a"], batch["b"]
        losses = {
            f"adversarial_{domain}": least_squares_generator(self.scores(domain, self.made(domain, batch), batch))
            for domain in ("a", "b")
        }
        losses["cycle"] = self.config.cycle_weight * (l1(self.cycled("a", batch), a) + l1(self.cycled("b", batch), b))
        if weight := self.config.cycle_weight * self.config.identity_weight:
            losses["identity"] = weight * (l1(self.b_to_a(a), a) + l1(self.a_to_b(b), b))
        return losses

    def discriminator_losses(self, domain: str, batch: Batch) -> Losses:
        made_NCHW = self.made(domain, batch).detach()
        if domain in self.pools:
            made_NCHW = self.pools[domain].exchange(made_NCHW, batch.draws, batch.first_row)
        # Halved, which slows the discriminators down (appendix 7.1).
        return {"adversarial": least_squares_discriminator(*self.real_and_fake_scores(domain, made_NCHW, batch)) / 2}
