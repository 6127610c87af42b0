"""The networks of ProSR (Wang 2018, arXiv 1804.02900, section 3), smaller: a pyramid whose levels double the image.

Legend: N samples, C channels, h = H / F size of the given image, F factor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class _DenseCompression(nn.Module):
    """A dense compression unit (section 3.1): densely connected convolutions, then 1 x 1 back to `maps`."""

    def __init__(self, maps: int, growth: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(maps + number * growth, growth, 3, 1, 1)) for number in range(num_layers)
        )
        self.compress = nn.Conv2d(maps + num_layers * growth, maps, 1)

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        found = hidden_NCHW
        for layer in self.layers:
            found = torch.cat([found, layer(found)], dim=1)
        compressed: Tensor = self.compress(found)
        return hidden_NCHW + compressed


class _Level(nn.Module):
    """Dense units, a doubling by sub-pixel convolution, and what is then added to the bicubic image."""

    def __init__(self, channels: int, width: int, num_units: int) -> None:
        super().__init__()
        units = [_DenseCompression(width, max(1, width // 2), 3) for _ in range(num_units)]
        self.units = nn.Sequential(*units)
        self.doubling = nn.Sequential(nn.Conv2d(width, 4 * width, 3, 1, 1), nn.PixelShuffle(2))
        self.to_image = nn.Sequential(nn.ReLU(), nn.Conv2d(width, channels, 3, 1, 1))
        nn.init.normal_(self.to_image[1].weight, 0.0, 1e-3)  # type: ignore[arg-type]

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        doubled: Tensor = self.doubling(hidden_NCHW + self.units(hidden_NCHW))
        return doubled


class Pyramid(nn.Module):
    """Small images (N, C, h, h) -> what has to be added to bicubic images of 2 h, 4 h, ..."""

    def __init__(self, channels: int, factor: int, width: int, num_units: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, width, 3, 1, 1)
        self.levels = nn.ModuleList(_Level(channels, width, num_units) for _ in range(int(math.log2(factor))))

    def forward(self, small_NChh: Tensor, num_levels: int) -> Tensor:
        """The correction of images of 2 ** num_levels times the size, (N, C, H, W)."""
        hidden = self.head(small_NChh)
        levels = list(self.levels)[:num_levels]
        for level in levels:
            hidden = level(hidden)
        correction: Tensor = levels[-1].to_image(hidden)  # type: ignore[operator]
        return correction
