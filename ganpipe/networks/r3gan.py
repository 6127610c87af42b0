"""The networks of R3GAN (Huang 2024, arXiv 2501.05441, section 4 and appendix), without any normalisation.

Legend: N samples, Z latent size, C channels, H = W image size.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .resampling import Binomial

START = 4
"""Side of the smallest feature maps."""
_SLOPE = 0.2


def num_levels(image_size: int) -> int:
    """Sizes from 4 x 4 to `image_size`."""
    return int(math.log2(image_size // START)) + 1


def _widths(image_size: int, width: int) -> list[int]:
    """Feature maps of each level from 4 x 4: `width` at the largest size, doubling towards 4 x 4, at most 8 times."""
    levels = num_levels(image_size)
    return [width * min(8, 2 ** (levels - 1 - level)) for level in range(levels)]


def _scaled(layer: nn.Conv2d | nn.Linear, gain: float) -> nn.Conv2d | nn.Linear:
    """The layer with weights of variance gain^2 / fan-in, and without bias."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, 0.0, 1.0)
    with torch.no_grad():
        layer.weight.mul_(gain / math.sqrt(fan_in))
    return layer


class _Residual(nn.Module):
    """1 x 1 to a wider layer, 3 x 3 in groups, 1 x 1 back (figure 4), added to the input.

    Fix-up initialisation (Zhang 2019, arXiv 1901.09321): the last layer begins at zero, the others are scaled by the
    number of blocks, so that no normalisation is needed.
    """

    def __init__(self, maps: int, expansion: int, group_width: int, num_blocks: int) -> None:
        super().__init__()
        inner = maps * expansion
        groups = max(1, inner // group_width)
        gain = math.sqrt(2 / (1 + _SLOPE**2)) * num_blocks ** (-1 / 4)  # -1 / (2 m - 2) for m = 3 layers
        self.widen = _scaled(nn.Conv2d(maps, inner, 1, bias=False), gain)
        self.bias_1 = nn.Parameter(torch.zeros(inner, 1, 1))
        self.filter = _scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=groups, bias=False), gain)
        self.bias_2 = nn.Parameter(torch.zeros(inner, 1, 1))
        self.narrow = _scaled(nn.Conv2d(inner, maps, 1, bias=False), 0.0)

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        inner = F.leaky_relu(self.widen(hidden_NCHW) + self.bias_1, _SLOPE)
        inner = F.leaky_relu(self.filter(inner) + self.bias_2, _SLOPE)
        added: Tensor = self.narrow(inner)
        return hidden_NCHW + added


class _Resampled(nn.Module):
    """Twice or half the side, smoothed, and a 1 x 1 convolution where the number of maps changes.

    The convolution stands where the maps are smaller.
    """

    def __init__(self, num_in: int, num_out: int, up: bool) -> None:
        super().__init__()
        self.up, self.filter = up, Binomial()
        self.change = _scaled(nn.Conv2d(num_in, num_out, 1, bias=False), 1.0) if num_in != num_out else nn.Identity()

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        if self.up:
            return self.filter.upsample(self.change(hidden_NCHW))
        halved: Tensor = self.change(self.filter.downsample(hidden_NCHW))
        return halved


def _blocks(maps: int, num: int, expansion: int, group_width: int, total: int) -> list[nn.Module]:
    return [_Residual(maps, expansion, group_width, total) for _ in range(num)]


def generator(
    num_latents: int, image_size: int, channels: int, width: int, blocks_per_level: int, expansion: int
) -> nn.Sequential:
    """(N, Z) -> images in [-1, 1], (N, C, H, W): residual blocks at each size, from 4 x 4 on.

    They end in tanh, which the paper does not have: see `progan.Generator`.
    """
    widths = _widths(image_size, width)
    total = blocks_per_level * len(widths)
    layers: list[nn.Module] = [_Basis(num_latents, widths[0])]
    layers += _blocks(widths[0], blocks_per_level, expansion, _group_width(width), total)
    for before, after in itertools.pairwise(widths):
        layers += [_Resampled(before, after, up=True)]
        layers += _blocks(after, blocks_per_level, expansion, _group_width(width), total)
    return nn.Sequential(*layers, _scaled(nn.Conv2d(widths[-1], channels, 1, bias=False), 1.0), nn.Tanh())


def discriminator(image_size: int, channels: int, width: int, blocks_per_level: int, expansion: int) -> nn.Sequential:
    """Images (N, C, H, W) -> logits (N,): the generator's mirror image."""
    widths = _widths(image_size, width)[::-1]
    total = blocks_per_level * len(widths)
    layers: list[nn.Module] = [_scaled(nn.Conv2d(channels, widths[0], 1, bias=False), 1.0)]
    layers += _blocks(widths[0], blocks_per_level, expansion, _group_width(width), total)
    for before, after in itertools.pairwise(widths):
        layers += [_Resampled(before, after, up=False)]
        layers += _blocks(after, blocks_per_level, expansion, _group_width(width), total)
    last = _scaled(nn.Conv2d(widths[-1], widths[-1], START, groups=widths[-1], bias=False), 1.0)
    return nn.Sequential(*layers, last, nn.Flatten(), _scaled(nn.Linear(widths[-1], 1, bias=False), 1.0), nn.Flatten(0))


def _group_width(width: int) -> int:
    """Maps per group of a 3 x 3 convolution; 32 in the paper, where the narrowest level has 768 maps."""
    return max(8, width // 2)


class _Basis(nn.Module):
    """A learned 4 x 4 picture per feature map, weighted by the latent."""

    def __init__(self, num_latents: int, maps: int) -> None:
        super().__init__()
        self.pictures = nn.Parameter(torch.randn(maps, START, START))
        self.weights = _scaled(nn.Linear(num_latents, maps, bias=False), 1.0)

    def forward(self, z_NZ: Tensor) -> Tensor:
        hidden: Tensor = self.pictures * self.weights(z_NZ)[:, :, None, None]
        return hidden
