"""InfoGAN: interpretable representations by information maximising GANs (Chen 2016, arXiv 1606.03657).

Legend: N samples, Z noise size, K values of the category, M continuous codes, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..fields import Fields, Label, Number
from ..losses.adversarial import wide
from ..networks import dcgan, infogan
from .base import Batch, DataSpec, GanConfig, Losses, Phase, Player, Progress
from .optimizers import Adam
from .pair import AdversarialPair


class InfoganSettings(GanConfig):
    """Appendix C.1."""

    num_latents: int = Field(default=62, ge=1)
    """Z, the size of the noise beside the codes, standard normal."""
    num_categories: int = Field(default=10, ge=2)
    """K, the values of the categorical code."""
    num_numbers: int = Field(default=2, ge=1, le=20)
    """M, the continuous codes, uniform in [-1, 1]."""
    generator_width: int = Field(default=64, ge=1)
    """Feature maps before the generator's last layer."""
    discriminator_width: int = Field(default=64, ge=1)
    """Feature maps after the first layer of the trunk that discriminator and recognition network share."""
    dense_width: int = Field(default=1024, ge=1)
    """Units of the generator's first layer and of the trunk's last layer."""
    recognition_width: int = Field(default=128, ge=1)
    """Units of the recognition network's hidden layer."""
    category_weight: float = Field(default=1.0, ge=0)
    """lambda of the categorical code."""
    number_weight: float = Field(default=0.1, ge=0)
    """lambda of the continuous codes: smaller, so that both terms are of the same scale (section 6)."""
    adam_generator: Adam = Adam(lr=1e-3, beta1=0.5, beta2=0.999)
    """The generator's optimiser."""
    adam_discriminator: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The optimiser of the trunk and the discriminator's head."""
    adam_recognition: Adam = Adam(lr=2e-4, beta1=0.5, beta2=0.999)
    """The optimiser of the recognition network's head."""


class Infogan(AdversarialPair):
    """A recognition network Q on the discriminator's trunk recovers the codes from the image."""

    Config = InfoganSettings
    config: InfoganSettings
    needs_power_of_two = True

    def __init__(self, config: InfoganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        num_inputs = config.num_latents + config.num_categories + config.num_numbers
        size, channels, dense_width = data.image_size, data.channels, config.dense_width
        self.generator = infogan.generator(num_inputs, size, channels, config.generator_width, dense_width)
        self.trunk = infogan.trunk(size, channels, config.discriminator_width, dense_width)
        self.discriminator = nn.Sequential(nn.Linear(dense_width, 1), nn.Flatten(0))
        num_outputs = config.num_categories + 2 * config.num_numbers
        self.recognition = infogan.recognition(dense_width, config.recognition_width, num_outputs)
        dcgan.initialise(self)

    @classmethod
    def codes(cls, config: GanConfig) -> Fields:
        assert isinstance(config, InfoganSettings)
        numbers = {f"code_{number}": Number() for number in range(1, config.num_numbers + 1)}
        return {"category": Label(num_classes=config.num_categories), **numbers}

    def players(self) -> dict[str, Player]:
        return {
            **super().players(),
            "discriminator": Player([self.trunk, self.discriminator], self.config.adam_discriminator),
            "recognition": Player([self.recognition], self.config.adam_recognition),
        }

    def phases(self, progress: Progress) -> list[Phase]:
        discriminator, generator = super().phases(progress)
        return [discriminator, Phase("recognition", self.recognition_losses, shares_batch=True), generator]

    def _code(self, name: str, batch: Batch) -> Tensor:
        """A code, (N,): as given when sampling, drawn in training."""
        if name in batch.fields:
            return batch[name]

        def draw() -> Tensor:
            drawn = self.codes(self.config)[name].drawn(batch.draws)
            assert drawn is not None
            return drawn.to(batch.device, non_blocking=True)

        return batch.once(name, draw)

    def _numbers(self, batch: Batch) -> Tensor:
        """The continuous codes, (N, M)."""
        names = [name for name in self.codes(self.config) if name != "category"]
        return torch.stack([self._code(name, batch) for name in names], dim=1).to(batch.dtype)

    def generate(self, batch: Batch) -> Tensor:
        z_NZ = batch.latent(self.config.num_latents)
        category_NK = F.one_hot(self._code("category", batch), self.config.num_categories).to(batch.dtype)
        images_NCHW: Tensor = self.generator(torch.cat([z_NZ, category_NK, self._numbers(batch)], dim=1))
        return images_NCHW

    def discriminate(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        logits_N: Tensor = self.discriminator(self.trunk(self.augmentation(images_NCHW, batch)))
        return logits_N

    def discriminator_losses_on(self, fake_NCHW: Tensor, batch: Batch) -> Losses:
        return {**super().discriminator_losses_on(fake_NCHW, batch), **self._information(fake_NCHW, batch)}

    def recognition_losses(self, batch: Batch, progress: Progress) -> Losses:
        return self._information(self._generated(batch).detach(), batch)

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        return {**super().generator_losses(batch, progress), **self._information(self._generated(batch), batch)}

    def _information(self, images_NCHW: Tensor, batch: Batch) -> Losses:
        """-L_I of equation 5 up to a constant: cross-entropy of the category, and the codes under a Gaussian each."""
        config = self.config
        found = wide(self.recognition(self.trunk(images_NCHW)))
        logits_NK, means_NM, log_variances_NM = found.split(
            [config.num_categories, config.num_numbers, config.num_numbers], dim=1
        )
        log_variances_NM = log_variances_NM.clamp(-6, 6)
        errors_NM = (self._numbers(batch) - means_NM).square() / log_variances_NM.exp()
        return {
            "category": config.category_weight * F.cross_entropy(logits_NK, self._code("category", batch)),
            "numbers": config.number_weight * 0.5 * (errors_NM + log_variances_NM).sum(1).mean(),
        }
