"""GANs whose generator maps a latent to a style, and gives each of its layers a style: StyleGAN and its successors.

Legend: N samples, Z latent size, D style size, L layers that take a style, C channels, H height, W width.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from pydantic import Field
from torch import Tensor

from ..networks import styles
from .base import Batch, Gan, GanConfig, Progress
from .draws import BatchDraws


class StyleSettings(GanConfig):
    """What all of them have."""

    num_latents: int = Field(default=128, ge=1)
    """Z = D, the size of the latent vector and of a style; 512 in the paper."""
    mapping_layers: int = Field(default=2, ge=1)
    """Layers of the mapping network; 8 in the paper, 2 in the authors' settings for 32 pixels (arXiv 2006.06676)."""
    mapping_learning_rate: float = Field(default=0.01, gt=0)
    """The mapping network's learning rate as a multiple of the generator's."""
    mixing: float = Field(default=0.0, ge=0, le=1)
    """Share of the generated images in training whose layers take the styles of two latents; 0.9 in the paper, and 0 in
    the authors' settings for 32 pixels."""


class StyleBased(Gan):
    """Sampling is `synthesise(styles(batch), batch, progress)`; what stands between may mix or exchange styles.

    Mapping and synthesis are one module, so that they belong to one player.
    """

    config: StyleSettings
    generator: styles.StyleGenerator

    def mapping(self) -> styles.Mapping:
        """The generator's mapping network, as the settings have it."""
        size, layers = self.config.num_latents, self.config.mapping_layers
        return styles.Mapping(size, size, layers, self.config.mapping_learning_rate)

    @abstractmethod
    def synthesise(self, w_NLD: Tensor, batch: Batch, progress: Progress) -> Tensor:
        """Images (N, C, H, W) in about [-1, 1] from a style per layer; the batch is asked for noise."""

    def styles(self, batch: Batch) -> Tensor:
        """Fresh latents' styles, (N, L, D), the same for each layer; truncated as the batch says."""
        w_ND: Tensor = self.generator.mapping(batch.to_device(batch.draws.normal(self.config.num_latents)))
        if batch.truncation < 1:
            w_ND = torch.lerp(self.mean_style(batch), w_ND, batch.truncation)
        return w_ND.unsqueeze(1).expand(-1, self.generator.num_layers, -1)

    def mean_style(self, batch: Batch) -> Tensor:
        """The mean of w over 4,096 fixed latents, (1, D), towards which truncation pulls (Karras 2018, appendix B).

        It follows from the weights, so no running mean is kept, and averaged weights have a mean of their own.
        """
        z_NZ = batch.to_device(BatchDraws(0, 4096, 0, 4096).normal(self.config.num_latents))
        w_ND: Tensor = self.generator.mapping(z_NZ)
        return w_ND.mean(0, keepdim=True)

    def mixed_styles(self, batch: Batch, num_layers: int) -> Tensor:
        """Styles for training: for a share of the images, layers from a random one on take those of a second latent.

        Args:
            num_layers: how many layers are on.
        """
        first_NLD, second_NLD = self.styles(batch), self.styles(batch)
        crossover_N = 1 + batch.draws.integers(num_layers - 1)
        is_mixed_N = batch.draws.uniform() < self.config.mixing
        return styles.mixed(first_NLD, second_NLD, torch.where(is_mixed_N, crossover_N, first_NLD.shape[1]))

    def sample(self, conditions: Batch, progress: Progress) -> Tensor:
        return self.synthesise(self.styles(conditions), conditions, progress)
