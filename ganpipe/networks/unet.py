"""The networks of pix2pix (Isola 2017, arXiv 1611.07004, section 6.1) for any power-of-two image size.

Legend: N samples, C channels, H = W image size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .norms import InstanceNorm

_NUM_DROPPED = 3
"""Decoder blocks with dropout, from the bottleneck outwards."""


def _widths(image_size: int, width: int) -> list[int]:
    """Feature maps of the encoder's blocks down to 1 x 1: doubling, at most 8 times `width`."""
    return [width * min(8, 2**level) for level in range(int(math.log2(image_size)))]


class UNet(nn.Module):
    """An encoder down to 1 x 1 and a decoder with skip connections between equal sizes (figure 3 of the paper).

    Instance norm in place of batch norm: the paper trains with one image per batch, where both are the same. No bias
    before a norm: its gradient would be rounding errors alone, and Adam would turn these into full steps.
    """

    def __init__(self, image_size: int, num_in: int, num_out: int, width: int, dropout: float) -> None:
        super().__init__()
        widths = _widths(image_size, width)
        self.dropout = dropout
        self.encoder = nn.ModuleList()
        for level, maps in enumerate(widths):
            before = num_in if level == 0 else widths[level - 1]
            block: list[nn.Module] = [nn.LeakyReLU(0.2)] if level else []
            has_norm = 0 < level < len(widths) - 1  # one value per map, at 1 x 1, would become zero
            block.append(nn.Conv2d(before, maps, 4, 2, 1, bias=not has_norm))
            if has_norm:
                block.append(InstanceNorm(maps))
            self.encoder.append(nn.Sequential(*block))
        self.decoder = nn.ModuleList()
        for level in range(len(widths) - 1, 0, -1):
            before = widths[level] * (1 if level == len(widths) - 1 else 2)
            up = nn.ConvTranspose2d(before, widths[level - 1], 4, 2, 1, bias=False)
            self.decoder.append(nn.Sequential(nn.ReLU(), up, InstanceNorm(widths[level - 1])))
        self.head = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * widths[0], num_out, 4, 2, 1), nn.Tanh())
        self.mask_shapes = [
            (widths[level - 1], image_size // 2**level, image_size // 2**level)
            for level in range(len(widths) - 1, 0, -1)
        ][:_NUM_DROPPED]
        """Shapes (C, H, W) of one sample's dropout masks."""

    def forward(self, source_NCHW: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Images in [-1, 1], (N, C, H, W).

        Args:
            noise: uniform numbers in [0, 1) of `mask_shapes`, samples first: a unit below `dropout` is left out.
        """
        skips = []
        hidden = source_NCHW
        for block in self.encoder:
            hidden = block(hidden)
            skips.append(hidden)
        skips.pop()
        for number, block in enumerate(self.decoder):
            hidden = block(hidden)
            if number < len(noise):
                hidden = hidden * (noise[number] >= self.dropout) / (1 - self.dropout)
            hidden = torch.cat([hidden, skips.pop()], dim=1)
        images_NCHW: Tensor = self.head(hidden)
        return images_NCHW


def patch_discriminator(
    image_size: int, num_in: int, width: int, num_halvings: int = 3, has_norm: bool = True
) -> nn.Sequential:
    """Images (N, C, H, W) -> logits of overlapping patches (N, 1, H', W').

    With three halvings a patch has 70 x 70 pixels, as in the paper; smaller images have fewer. Without a norm it serves
    as a critic under a gradient penalty.
    """
    num_halvings = min(num_halvings, max(1, int(math.log2(image_size)) - 3))
    layers: list[nn.Module] = [nn.Conv2d(num_in, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for level in range(1, num_halvings + 1):
        before, maps = width * min(8, 2 ** (level - 1)), width * min(8, 2**level)
        stride = 2 if level < num_halvings else 1
        layers.append(nn.Conv2d(before, maps, 4, stride, 1, bias=not has_norm))
        layers += [InstanceNorm(maps)] if has_norm else []
        layers.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*layers, nn.Conv2d(width * min(8, 2**num_halvings), 1, 4, 1, 1))
