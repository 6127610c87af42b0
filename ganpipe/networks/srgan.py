"""The networks of SRGAN (Ledig 2017, arXiv 1609.04802, figure 4) for any power-of-two factor.

Legend: N samples, C channels, H = W size of the large image, F factor.
"""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn


class _Residual(nn.Module):
    def __init__(self, maps: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(maps, maps, 3, 1, 1, bias=False),
            nn.BatchNorm2d(maps),
            nn.PReLU(),
            nn.Conv2d(maps, maps, 3, 1, 1, bias=False),
            nn.BatchNorm2d(maps),
        )

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        added: Tensor = self.block(hidden_NCHW)
        return hidden_NCHW + added


class SrResNet(nn.Module):
    """Small images (N, C, H / F, W / F) -> large ones in [-1, 1], (N, C, H, W)."""

    def __init__(self, channels: int, factor: int, width: int, num_blocks: int) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(channels, width, 9, 1, 4), nn.PReLU())
        self.body = nn.Sequential(
            *[_Residual(width) for _ in range(num_blocks)],
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        up: list[nn.Module] = []
        for _ in range(int(math.log2(factor))):
            up += [nn.Conv2d(width, 4 * width, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU()]
        self.tail = nn.Sequential(*up, nn.Conv2d(width, channels, 9, 1, 4), nn.Tanh())

    def forward(self, small_NCHW: Tensor) -> Tensor:
        hidden = self.head(small_NCHW)
        images_NCHW: Tensor = self.tail(hidden + self.body(hidden))
        return images_NCHW


def discriminator(image_size: int, channels: int, width: int) -> nn.Sequential:
    """Images (N, C, H, W) -> logits (N,). Convolutions in pairs, the second of which halves the side, down to 4 x 4."""
    maps = [width * min(8, 2**level) for level in range(int(math.log2(image_size)) - 2)]
    layers: list[nn.Module] = [nn.Conv2d(channels, maps[0], 3, 1, 1), nn.LeakyReLU(0.2)]
    layers += _halving(maps[0], maps[0])
    for before, after in itertools.pairwise(maps):
        layers += [nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
        layers += _halving(after, after)
    hidden = 16 * width
    layers += [nn.Flatten(), nn.Linear(maps[-1] * 16, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)]
    return nn.Sequential(*layers, nn.Flatten(0))


def _halving(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
