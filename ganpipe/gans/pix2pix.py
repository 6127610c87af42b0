"""pix2pix: image-to-image translation with conditional adversarial networks (Isola 2017, arXiv 1611.07004).

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ..errors import GanpipeError
from ..fields import FieldSpec, Picture
from ..losses.reconstruction import l1
from ..networks import dcgan, unet
from .base import Batch, DataSpec, Derived, GanConfig, Losses, Origin, Player, Progress, Stored, decaying
from .degradations import LowResolution, Moved, Noisy
from .draws import Draws
from .optimizers import Adam
from .pair import AdversarialPair
from .spec import kind_of, require_power_of_two


class Pix2pixSettings(GanConfig):
    """Section 3.3 and the appendix."""

    source: Literal["stored", "motion", "noise", "low_resolution"] = "stored"
    """What it is given: the dataset's field `source`; or, for datasets without that field, the image itself, blurred by
    a moving camera, with noise, or without its details."""
    motion_length: float = Field(default=0.25, gt=0, le=1)
    """motion: the longest path of the camera, as a share of an image's side."""
    noise: float = Field(default=0.1, gt=0, le=1)
    """noise: its standard deviation, as a share of the range of values."""
    factor: Literal[2, 4, 8] = 4
    """low_resolution: how many times smaller the image was made in between."""
    generator_width: int = Field(default=32, ge=1)
    """Feature maps of the U-Net's first block; deeper blocks have up to 8 times as many. 64 in the paper, at 256
    pixels."""
    discriminator_width: int = Field(default=32, ge=1)
    """Feature maps of the discriminator's first layer; 64 in the paper."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Chance that a unit of the decoder's inner blocks is left out: the paper's only noise, in sampling, too."""
    reconstruction_weight: float = Field(default=100.0, ge=0)
    """lambda, the weight of the L1 distance to the target."""
    decay_from: float = Field(default=0.5, ge=0, le=1)
    """Share of the training after which learning rates fall linearly, to zero at its end."""
    adam_generator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The discriminator's optimiser."""


class Pix2pix(AdversarialPair):
    """A U-Net makes the target of a source; the discriminator sees the source beside the target, patch by patch."""

    Config = Pix2pixSettings
    depends_on_length = True
    config: Pix2pixSettings
    fields = ("target", "source")
    given = ("source",)
    has_latents = False
    separate_passes = False
    generator: unet.UNet

    def __init__(self, config: Pix2pixSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        target, source = self._pictures(config, data)
        assert isinstance(target, Picture)
        assert isinstance(source, Picture)
        self.generator = unet.UNet(
            target.size, source.channels, target.channels, config.generator_width, config.dropout
        )
        self.discriminator = unet.patch_discriminator(
            target.size, source.channels + target.channels, config.discriminator_width
        )
        dcgan.initialise(self)

    @classmethod
    def origins(cls, config: GanConfig, data: DataSpec) -> dict[str, Origin]:
        assert isinstance(config, Pix2pixSettings)
        if config.source == "stored":
            return super().origins(config, data)
        degraded: dict[str, Callable[[Tensor, Draws], Tensor]] = {
            "motion": Moved(config.motion_length),
            "noise": Noisy(config.noise),
            "low_resolution": LowResolution(config.factor),
        }
        return {"target": Stored(data.main), "source": Derived(data.main, degraded[config.source], data.image)}

    @classmethod
    def _pictures(cls, config: GanConfig, data: DataSpec) -> list[FieldSpec]:
        """Target and source."""
        origins = cls.origins(config, data)
        return [kind_of(origins[name], data) for name in cls.fields]

    @classmethod
    def check(cls, config: GanConfig, data: DataSpec) -> None:
        super().check(config, data)
        target, source = cls._pictures(config, data)
        if not isinstance(target, Picture) or not isinstance(source, Picture) or target.size != source.size:
            raise GanpipeError(f"pix2pix needs source and target of one size, got {source.text} and {target.text}")
        require_power_of_two(target.size, "pix2pix")

    def players(self) -> dict[str, Player]:
        return decaying(super().players(), self.config.decay_from)

    def generate(self, batch: Batch) -> Tensor:
        noise = [batch.to_device(batch.draws.uniform(*shape)) for shape in self.generator.mask_shapes]
        images_NCHW: Tensor = self.generator(batch["source"], noise)
        return images_NCHW

    def discriminate(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        both = torch.cat([batch["source"], images_NCHW.to(batch["source"].dtype)], dim=1)
        logits: Tensor = self.discriminator(self.augmentation(both, batch))
        return logits

    def discriminator_losses(self, batch: Batch, progress: Progress) -> Losses:
        # Halved, which slows the discriminator down (section 3.3).
        return {name: loss / 2 for name, loss in super().discriminator_losses(batch, progress).items()}

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        distance = l1(self._generated(batch), batch["target"])
        return {**super().generator_losses(batch, progress), "l1": self.config.reconstruction_weight * distance}
