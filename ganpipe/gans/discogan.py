"""DiscoGAN: learning to discover cross-domain relations (Kim 2017, arXiv 1703.05192).

Legend: N samples, C channels, H = W image size. a and b are two domains, whose images are never paired.
"""

from __future__ import annotations

from pydantic import Field

from ..losses.adversarial import discriminator_cross_entropy, non_saturating
from ..losses.reconstruction import squared
from ..networks import dcgan
from ..networks.autoencoder import translator
from .base import Batch, DataSpec, Losses, Progress
from .optimizers import Adam
from .unpaired import UnpairedGan, UnpairedSettings


class DiscoganSettings(UnpairedSettings):
    """Section 3.3, in smaller widths."""

    generator_width: int = Field(default=32, ge=1)
    """Feature maps of both generators at the image's size; 64 in the paper."""
    num_codes: int = Field(default=100, ge=1)
    """Units of a generator's narrowest layer, through which all of an image must pass."""
    discriminator_width: int = Field(default=32, ge=1)
    """Feature maps of both discriminators' first layer; 64 in the paper."""
    reconstruction_weight: float = Field(default=10.0, ge=0)
    """Weight of the mean squared distance of an image and its translation there and back; 1 in the paper, whose
    authors' code raises it from 1/99 to 1."""
    adam_generators: Adam = Adam(lr=5e-4, beta1=0.5, beta2=0.999)
    """The optimiser of both generators; 2e-4 in the paper."""
    adam_discriminator_a: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The optimiser of the discriminator of domain a."""
    adam_discriminator_b: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The optimiser of the discriminator of domain b."""


class Discogan(UnpairedGan):
    """Translation through a code without a place: more of an image may change than with CycleGAN's feature maps."""

    Config = DiscoganSettings
    config: DiscoganSettings

    def __init__(self, config: DiscoganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels = data.image_size, data.channels
        self.a_to_b = translator(size, channels, config.generator_width, config.num_codes)
        self.b_to_a = translator(size, channels, config.generator_width, config.num_codes)
        self.discriminator_a = dcgan.discriminator(size, channels, config.discriminator_width)
        self.discriminator_b = dcgan.discriminator(size, channels, config.discriminator_width)
        dcgan.initialise(self)

    def generators_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 9."""
        losses = {
            f"adversarial_{domain}": non_saturating(self.scores(domain, self.made(domain, batch), batch))
            for domain in ("a", "b")
        }
        for domain in ("a", "b"):
            distance = squared(self.cycled(domain, batch), batch[domain])
            losses[f"reconstruction_{domain}"] = self.config.reconstruction_weight * distance
        return losses

    def discriminator_losses(self, domain: str, batch: Batch) -> Losses:
        """Equation 8, for one domain."""
        scores = self.real_and_fake_scores(domain, self.made(domain, batch), batch)
        return {"adversarial": discriminator_cross_entropy(*scores)}
