"""DualGAN: unsupervised dual learning for image-to-image translation (Yi 2017, arXiv 1704.02510).

Legend: N samples, C channels, H = W image size. a and b are two domains, whose images are never paired (U and V).
"""

from __future__ import annotations

import dataclasses
from functools import partial

from pydantic import Field
from torch import Tensor

from ..losses.adversarial import wasserstein_critic, wasserstein_generator
from ..losses.penalties import clip_weights
from ..losses.reconstruction import l1
from ..networks import dcgan, unet
from .base import Batch, DataSpec, Losses, Phase, Progress
from .optimizers import RMSprop
from .unpaired import UnpairedGan, UnpairedSettings


class DualganSettings(UnpairedSettings):
    """Section 3.3 and algorithm 1, in smaller widths."""

    generator_width: int = Field(default=32, ge=1)
    """Feature maps of both U-Nets' first block; 64 in the paper."""
    critic_width: int = Field(default=32, ge=1)
    """Feature maps of both critics' first layer; 64 in the paper."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Chance that a unit of a generator's inner blocks is left out: the paper's only noise, in sampling, too."""
    reconstruction_weight: float = Field(default=20.0, ge=0)
    """lambda_U and lambda_V, the weight of the L1 distance of an image and its translation there and back; 100 to 1000
    in the paper, with which a training of minutes hardly changes an image."""
    clip: float = Field(default=0.1, gt=0)
    """c: after each update the critics' weights are put into [-c, c]; 0.01 to 0.1 in the paper."""
    num_critic_updates: int = Field(default=2, ge=1)
    """n_critic: critic updates per update of the generators, each on a fresh batch; 2 to 4 in the paper."""
    rmsprop_generators: RMSprop = RMSprop(lr=5e-4)
    """The optimiser of both generators; 5e-5 in the paper, for many more updates."""
    rmsprop_critic_a: RMSprop = RMSprop(lr=5e-4)
    """The optimiser of the critic of domain a."""
    rmsprop_critic_b: RMSprop = RMSprop(lr=5e-4)
    """The optimiser of the critic of domain b."""


class Dualgan(UnpairedGan):
    """Two Wasserstein GANs, each of which undoes what the other has done."""

    Config = DualganSettings
    config: DualganSettings
    discriminator_name = "critic"

    def __init__(self, config: DualganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        size, channels, width = data.image_size, data.channels, config.generator_width
        self.a_to_b = unet.UNet(size, channels, channels, width, config.dropout)
        self.b_to_a = unet.UNet(size, channels, channels, width, config.dropout)
        self.critic_a = unet.patch_discriminator(size, channels, config.critic_width)
        self.critic_b = unet.patch_discriminator(size, channels, config.critic_width)
        dcgan.initialise(self)

    def translate(self, images_NCHW: Tensor, direction: str, batch: Batch) -> Tensor:
        network = self.a_to_b if direction == "a_to_b" else self.b_to_a
        assert isinstance(network, unet.UNet)
        noise = [batch.to_device(batch.draws.uniform(*shape)) for shape in network.mask_shapes]
        made_NCHW: Tensor = network(images_NCHW, noise)
        return made_NCHW

    def phases(self, progress: Progress) -> list[Phase]:
        first, second, generators = super().phases(progress)
        clip_a, clip_b = (partial(clip_weights, critic, self.config.clip) for critic in (self.critic_a, self.critic_b))
        return [
            dataclasses.replace(first, num_updates=self.config.num_critic_updates, after_update=clip_a),
            dataclasses.replace(second, after_update=clip_b),
            dataclasses.replace(generators, shares_batch=False),
        ]

    def generators_losses(self, batch: Batch, progress: Progress) -> Losses:
        """Equation 2."""
        losses = {
            f"adversarial_{domain}": wasserstein_generator(self.scores(domain, self.made(domain, batch), batch))
            for domain in ("a", "b")
        }
        for domain in ("a", "b"):
            distance = l1(self.cycled(domain, batch), batch[domain])
            losses[f"reconstruction_{domain}"] = self.config.reconstruction_weight * distance
        return losses

    def discriminator_losses(self, domain: str, batch: Batch) -> Losses:
        """Equation 1, for one domain."""
        scores = self.real_and_fake_scores(domain, self.made(domain, batch), batch)
        return {"adversarial": wasserstein_critic(*scores)}
