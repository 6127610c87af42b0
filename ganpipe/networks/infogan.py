"""The networks of InfoGAN for MNIST (Chen 2016, arXiv 1606.03657, table 1), for any power-of-two image size.

Legend: N samples, Z size of noise and codes together, D units of the dense layer, C channels, H = W image size.
"""

from __future__ import annotations

import itertools
import math

from torch import nn

from .dcgan import ToImage
from .norms import DenseBatchNorm

START = 8
"""Side of the smallest feature maps; 7 in the paper, whose images have 28 pixels."""
_SLOPE = 0.1


def _widths(image_size: int, width: int) -> list[int]:
    """Feature maps from the image side inwards to 8 x 8: doubling, at most 8 times `width`."""
    return [width * min(8, 2**level) for level in range(int(math.log2(image_size // START)))]


def generator(num_inputs: int, image_size: int, channels: int, width: int, dense_width: int) -> nn.Sequential:
    """(N, Z) -> images in [-1, 1], (N, C, H, W).

    Two dense layers, then fractionally-strided convolutions from 8 x 8 on. `width` is the number of feature maps before
    the last layer (64 in the paper), `dense_width` D (1024).
    """
    widths = _widths(image_size, width)[::-1]
    layers: list[nn.Module] = [nn.Linear(num_inputs, dense_width, bias=False), DenseBatchNorm(dense_width), nn.ReLU()]
    layers += [nn.Linear(dense_width, widths[0] * START**2, bias=False), nn.Unflatten(1, (widths[0], START, START))]
    layers += [nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
    for num_in, num_out in itertools.pairwise(widths):
        layers += [nn.ConvTranspose2d(num_in, num_out, 4, 2, 1, bias=False), nn.BatchNorm2d(num_out)]
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers, ToImage(widths[-1], channels), nn.Tanh())


def trunk(image_size: int, channels: int, width: int, dense_width: int) -> nn.Sequential:
    """Images (N, C, H, W) -> what discriminator and recognition network share, (N, D).

    The dense layer matters: with heads on DCGAN's feature maps the codes hid in textures instead of in the digit.
    """
    widths = _widths(image_size, width)
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(_SLOPE, inplace=True)]
    for num_in, num_out in itertools.pairwise(widths):
        layers += [nn.Conv2d(num_in, num_out, 4, 2, 1, bias=False), nn.BatchNorm2d(num_out)]
        layers.append(nn.LeakyReLU(_SLOPE, inplace=True))
    layers += [nn.Flatten(), nn.Linear(widths[-1] * START**2, dense_width, bias=False)]
    return nn.Sequential(*layers, DenseBatchNorm(dense_width), nn.LeakyReLU(_SLOPE, inplace=True))


def recognition(dense_width: int, width: int, num_outputs: int) -> nn.Sequential:
    """(N, D) -> (N, num_outputs); `width` units in between (128 in the paper)."""
    hidden = [nn.Linear(dense_width, width, bias=False), DenseBatchNorm(width), nn.LeakyReLU(_SLOPE, inplace=True)]
    return nn.Sequential(*hidden, nn.Linear(width, num_outputs))
