"""The generator of StyleGAN (Karras 2018, arXiv 1812.04948, section 2 and figure 1), which grows as ProGAN's.

Legend: N samples, D style size, L layers that take a style, C channels or feature maps, H = W size of a layer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .norms import normalised
from .progan import START, EqualizedConv2d, EqualizedLinear, leaky, widths_of
from .resampling import Binomial
from .styles import Mapping, Noise, StyleGenerator


class AdaIn(nn.Module):
    """Adaptive instance normalisation (eq. 1): each map gets the standard deviation and the mean of the style."""

    def __init__(self, num_styles: int, maps: int) -> None:
        super().__init__()
        self.affine = EqualizedLinear(num_styles, 2 * maps, gain=1)

    def forward(self, hidden_NCHW: Tensor, w_ND: Tensor) -> Tensor:
        scale_NC, mean_NC = self.affine(w_ND).chunk(2, dim=1)
        return torch.addcmul(mean_NC[..., None, None], normalised(hidden_NCHW), 1 + scale_NC[..., None, None])


class _Layer(nn.Module):
    """What follows each convolution: noise, LeakyReLU, AdaIN."""

    def __init__(self, num_styles: int, maps: int) -> None:
        super().__init__()
        self.noise, self.norm = Noise(maps), AdaIn(num_styles, maps)

    def forward(self, hidden_NCHW: Tensor, noise_N1HW: Tensor, w_ND: Tensor) -> Tensor:
        styled_NCHW: Tensor = self.norm(leaky(self.noise(hidden_NCHW, noise_N1HW)), w_ND)
        return styled_NCHW


class UpsamplingConv2d(nn.Module):
    """An equalised 3 x 3 convolution of the image that is doubled by repeating pixels, and blurred by [1 2 1]."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_out, num_in, 3, 3))
        self.bias_C11 = nn.Parameter(torch.zeros(num_out, 1, 1))
        self.scale, self.filter = math.sqrt(2 / (num_in * 9)), Binomial()

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        hidden_NCHW = self.filter.upsampling_convolution(hidden_NCHW, self.weight * self.scale)
        return hidden_NCHW + self.bias_C11.to(hidden_NCHW.dtype)


class Generator(StyleGenerator):
    """A mapping network, and a synthesis network whose input is learned and constant.

    Images end in tanh, which the paper does not have: see `progan.Generator`.
    """

    def __init__(self, image_size: int, channels: int, width: int, mapping: Mapping, num_styles: int) -> None:
        widths = widths_of(image_size, width)
        super().__init__(mapping, num_layers=2 * len(widths))
        self.image_size = image_size
        # Not of ones, as in the paper: AdaIN would divide the rounding errors of a map without any variance by about 0.
        self.constant = nn.Parameter(torch.randn(1, widths[0], START, START))
        self.start_bias = nn.Parameter(torch.zeros(1, widths[0], 1, 1))
        self.upsampling = nn.ModuleList(UpsamplingConv2d(before, after) for before, after in itertools.pairwise(widths))
        self.convolutions = nn.ModuleList(EqualizedConv2d(maps, maps, 3) for maps in widths)
        self.layers = nn.ModuleList(_Layer(num_styles, maps) for maps in widths for _ in range(2))
        self.to_image = nn.ModuleList(EqualizedConv2d(maps, channels, 1, gain=1) for maps in widths)

    def forward(self, w_NLD: Tensor, noise: Sequence[Tensor], level: int, fade: float) -> Tensor:
        """Images in [-1, 1], (N, C, H, W), of the size of the last level whatever level is on.

        Args:
            noise: of each layer that is on, as `noise_shapes`.
            level, fade: as ProGAN's.
        """
        styles, layers = zip(w_NLD.unbind(1), noise, strict=False), iter(self.layers)
        hidden = before = (self.constant + self.start_bias).expand(len(w_NLD), -1, -1, -1)
        for number in range(level + 1):
            if number:
                before, hidden = hidden, self.upsampling[number - 1](hidden)
            for convolution in (nn.Identity(), self.convolutions[number]):
                w_ND, noise_N1HW = next(styles)
                hidden = next(layers)(convolution(hidden), noise_N1HW, w_ND)
        images_NCHW: Tensor = self.to_image[level](hidden)
        if level and fade < 1:
            softer = F.interpolate(self.to_image[level - 1](before), scale_factor=2, mode="nearest")
            images_NCHW = torch.lerp(softer, images_NCHW, fade)
        return F.interpolate(torch.tanh(images_NCHW), (self.image_size, self.image_size), mode="nearest")


def noise_shapes(level: int) -> list[tuple[int, int, int]]:
    """(1, H, W) of each layer's noise, up to a level."""
    return [(1, START * 2**number, START * 2**number) for number in range(level + 1) for _ in range(2)]
