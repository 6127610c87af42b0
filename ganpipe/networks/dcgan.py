"""The networks of DCGAN (Radford 2015, arXiv 1511.06434, section 3 and figure 1), for any power-of-two image size.

Legend: N samples, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _widths(image_size: int, width: int) -> list[int]:
    """Feature maps from the image side inwards to 4 x 4: doubling, at most 8 times `width` as in the paper."""
    return [width * min(8, 2**level) for level in range(int(math.log2(image_size)) - 2)]


def generator(num_latents: int, image_size: int, channels: int, width: int) -> nn.Sequential:
    """(N, Z) -> images in [-1, 1], (N, C, H, W).

    Projects to 4 x 4 and doubles the side with fractionally-strided convolutions; batch norm and ReLU between them,
    tanh at the end. `width` is the number of feature maps before the last layer (128 in the paper, at 64 pixels).
    """
    widths = _widths(image_size, width)[::-1]
    layers: list[nn.Module] = [nn.Linear(num_latents, widths[0] * 16, bias=False), nn.Unflatten(1, (widths[0], 4, 4))]
    layers += _norm_relu(widths[0])
    for num_in, num_out in itertools.pairwise(widths):
        layers += [nn.ConvTranspose2d(num_in, num_out, 4, 2, 1, bias=False), *_norm_relu(num_out)]
    return nn.Sequential(*layers, ToImage(widths[-1], channels), nn.Tanh())


class ToImage(nn.ConvTranspose2d):
    """The generator's last convolution, (N, M, H / 2, W / 2) -> (N, C, H, W), as strong at the border as in the middle.

    A pixel at the border has half of the terms that others have, in a corner a quarter: a black ground is less black
    there. A discriminator hardly minds, and FID does (docs/recipes.md). So the sum is divided by the share of its terms
    that are there (partial convolution, Liu 2018, arXiv 1811.11718, equation 3).
    """

    def __init__(self, maps: int, channels: int) -> None:
        super().__init__(maps, channels, 4, 2, 1)

    def forward(self, maps_NMHW: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert self.bias is not None
        sums_NCHW = F.conv_transpose2d(maps_NMHW, self.weight, stride=2, padding=1)
        side_H = torch.ones(sums_NCHW.shape[-1], device=sums_NCHW.device)
        side_H[:: len(side_H) - 1] = 2
        return sums_NCHW * (side_H[:, None] * side_H) + self.bias.reshape(-1, 1, 1)


def _norm_relu(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def discriminator(
    image_size: int, channels: int, width: int, batch_norm: bool = True, num_outputs: int = 1
) -> nn.Sequential:
    """Images (N, C, H, W) -> logits (N,), or (N, num_outputs) where there are several.

    Halves the side with strided convolutions down to 4 x 4; LeakyReLU(0.2) everywhere, batch norm everywhere but at the
    input and output. `width` is the number of feature maps after the first layer. Without `batch_norm` it serves as a
    critic under a per-sample gradient penalty (Gulrajani 2017, section 4).
    """
    widths = _widths(image_size, width)
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
    for num_in, num_out in itertools.pairwise(widths):
        layers.append(nn.Conv2d(num_in, num_out, 4, 2, 1, bias=not batch_norm))
        layers += [nn.BatchNorm2d(num_out)] if batch_norm else []
        layers.append(nn.LeakyReLU(0.2, inplace=True))
    layers += [nn.Flatten(), nn.Linear(widths[-1] * 16, num_outputs)]
    return nn.Sequential(*layers, *([nn.Flatten(0)] if num_outputs == 1 else []))


def initialise(network: nn.Module) -> None:
    """Weights from N(0, 0.02^2) (section 4); batch norm's gains around 1 (as in the authors' code), biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
