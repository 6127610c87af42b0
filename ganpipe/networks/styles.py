"""What the networks of StyleGAN (Karras 2018, arXiv 1812.04948) and StyleGAN2 (Karras 2019, arXiv 1912.04958) share.

Legend: N samples, Z latent size, D style size, L layers that take a style, C feature maps, H = W size of a layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .progan import EqualizedConv2d, EqualizedLinear, leaky, pixel_norm
from .resampling import Binomial


class Mapping(nn.Module):
    """Latents (N, Z) -> styles w (N, D), by fully connected layers that learn more slowly than others (appendix C)."""

    def __init__(self, num_latents: int, num_styles: int, num_layers: int, learning_rate: float) -> None:
        super().__init__()
        sizes = [num_latents] + [num_styles] * (num_layers - 1)
        self.layers = nn.ModuleList(EqualizedLinear(size, num_styles, learning_rate=learning_rate) for size in sizes)

    def forward(self, z_NZ: Tensor) -> Tensor:
        hidden = pixel_norm(z_NZ)
        for layer in self.layers:
            hidden = leaky(layer(hidden))
        return hidden


class StyleGenerator(nn.Module):
    """A mapping network within a synthesis network, which is the rest of the module.

    Attributes:
        num_layers: L.
    """

    def __init__(self, mapping: Mapping, num_layers: int) -> None:
        super().__init__()
        self.mapping, self.num_layers = mapping, num_layers


class Noise(nn.Module):
    """Adds the same random pixels to each feature map, with a strength that is learned (section 2).

    Args:
        maps: how many strengths there are: one per map in StyleGAN, one for all in StyleGAN2.
    """

    def __init__(self, maps: int = 1) -> None:
        super().__init__()
        self.strength_C11 = nn.Parameter(torch.zeros(maps, 1, 1))

    def forward(self, hidden_NCHW: Tensor, noise_N1HW: Tensor) -> Tensor:
        return hidden_NCHW + (self.strength_C11 * noise_N1HW).to(hidden_NCHW.dtype)


class SmoothHalving(nn.Module):
    """The two convolutions of a size in a discriminator, of which the second halves the side of a smoothed image."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first, self.second = EqualizedConv2d(before, before, 3), EqualizedConv2d(before, after, 3, stride=2)
        self.filter = Binomial()

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        return leaky(self.second(self.filter.smooth(leaky(self.first(hidden_NCHW)), padding=2)))


def mixed(first_NLD: Tensor, second_NLD: Tensor, crossover_N: Tensor) -> Tensor:
    """Styles of which the layers from the crossover on are of the second kind (section 3.1).

    Args:
        crossover_N: from 0 to L, on the CPU.
    """
    is_second_NL = torch.arange(first_NLD.shape[1]) >= crossover_N[:, None]
    return torch.where(is_second_NL.to(first_NLD.device, non_blocking=True)[..., None], second_NLD, first_NLD)
