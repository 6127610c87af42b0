"""The discriminator of SNGAN (Miyato 2018, arXiv 1802.05957, table 3), for any power-of-two image size.

Legend: N samples, C channels, H = W image size.
"""

from __future__ import annotations

import math

from torch import nn

from . import spectral

_SLOPE = 0.1


def discriminator(image_size: int, channels: int, width: int) -> nn.Sequential:
    """Images (N, C, H, W) -> scores (N,).

    At each size a 3 x 3 convolution and a 4 x 4 one with stride 2, down to 4 x 4 pixels; LeakyReLU(0.1), and spectral
    normalisation in every layer. `width` is the number of feature maps at the largest size (64 in the paper); they
    double inwards, up to eightfold.
    """
    widths = [width * min(8, 2**level) for level in range(int(math.log2(image_size)) - 1)]
    layers: list[nn.Module] = []
    num_in = channels
    for maps in widths[:-1]:
        layers += [nn.Conv2d(num_in, maps, 3, 1, 1), nn.LeakyReLU(_SLOPE, inplace=True)]
        layers += [nn.Conv2d(maps, maps, 4, 2, 1), nn.LeakyReLU(_SLOPE, inplace=True)]
        num_in = maps
    layers += [nn.Conv2d(num_in, widths[-1], 3, 1, 1), nn.LeakyReLU(_SLOPE, inplace=True)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * 16, 1), nn.Flatten(0))
    spectral.normalise(network)
    return network
