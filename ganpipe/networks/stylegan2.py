"""The networks of StyleGAN2 (Karras 2019, arXiv 1912.04958, sections 2 and 4): skip generator, residual discriminator.

Legend: N samples, D style size, L layers that take a style, I input maps, O output maps, C channels, H = W image size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .progan import START, EqualizedConv2d, EqualizedLinear, Scores, leaky, widths_of
from .resampling import Binomial
from .styles import Mapping, Noise, SmoothHalving, StyleGenerator


class ModulatedConv2d(nn.Module):
    """A convolution whose weights are multiplied by a style, map by map of its input, and then normalised (eq. 1 to 3).

    Computed by scaling what goes in and what comes out, which is the same as weights of each sample's own.
    """

    def __init__(
        self, num_styles: int, num_in: int, num_out: int, kernel: int, demodulated: bool = True, upsampled: bool = False
    ) -> None:
        super().__init__()
        self.affine = EqualizedLinear(num_styles, num_in, gain=1)
        self.weight = nn.Parameter(torch.randn(num_out, num_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(num_out, 1, 1))
        self.scale, self.padding = 1 / math.sqrt(num_in * kernel**2), kernel // 2
        self.demodulated, self.filter = demodulated, Binomial() if upsampled else None

    def style(self, w_ND: Tensor) -> Tensor:
        """The factor of each input map, (N, I); near 1 before training."""
        factors_NI: Tensor = 1 + self.affine(w_ND)
        return factors_NI

    def demodulation(self, style_NI: Tensor) -> Tensor:
        """The factor of each output map that gives its weights an L2 norm of 1, (N, O)."""
        squares_OI = (self.weight * self.scale).square().sum((2, 3))
        return torch.rsqrt(F.linear(style_NI.square(), squares_OI) + 1e-8)

    def forward(self, hidden_NIHW: Tensor, w_ND: Tensor) -> Tensor:
        """Without the bias, which belongs behind the noise."""
        style_NI, weight_OIKK = self.style(w_ND), self.weight * self.scale
        hidden = hidden_NIHW * style_NI[..., None, None].to(hidden_NIHW.dtype)
        if self.filter is None:
            hidden = F.conv2d(hidden, weight_OIKK, padding=self.padding)
        else:
            hidden = self.filter.upsampling_convolution(hidden, weight_OIKK)
        return hidden * self.demodulation(style_NI)[..., None, None].to(hidden.dtype) if self.demodulated else hidden


class _Layer(nn.Module):
    def __init__(self, num_styles: int, num_in: int, num_out: int, upsampled: bool) -> None:
        super().__init__()
        self.convolution = ModulatedConv2d(num_styles, num_in, num_out, 3, upsampled=upsampled)
        self.noise = Noise()

    def forward(self, hidden_NCHW: Tensor, w_ND: Tensor, noise_N1HW: Tensor) -> Tensor:
        hidden = self.noise(self.convolution(hidden_NCHW, w_ND), noise_N1HW)
        # LeakyReLU about halves the mean square.
        return 2**0.5 * leaky(hidden + self.convolution.bias.to(hidden.dtype))


class Generator(StyleGenerator):
    """The image is the sum of what each size adds to the upsampled image of the size before (figure 7b).

    It ends in tanh, which the paper does not have: see `progan.Generator`.
    """

    def __init__(self, image_size: int, channels: int, width: int, mapping: Mapping, num_styles: int) -> None:
        widths = widths_of(image_size, width)
        super().__init__(mapping, num_layers=2 * len(widths))
        self.constant = nn.Parameter(torch.randn(1, widths[0], START, START))
        self.layers = nn.ModuleList([_Layer(num_styles, widths[0], widths[0], upsampled=False)])
        for before, after in itertools.pairwise(widths):
            self.layers.append(_Layer(num_styles, before, after, upsampled=True))
            self.layers.append(_Layer(num_styles, after, after, upsampled=False))
        self.to_image = nn.ModuleList(
            ModulatedConv2d(num_styles, maps, channels, 1, demodulated=False) for maps in widths
        )
        self.filter = Binomial()

    def forward(self, w_NLD: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Images in [-1, 1], (N, C, H, W).

        Args:
            noise: of each layer, as `noise_shapes`.
        """
        styles = w_NLD.unbind(1)
        hidden = self.constant.repeat(len(w_NLD), 1, 1, 1)
        hidden = self.layers[0](hidden, styles[0], noise[0])
        images_NCHW = self._image(0, hidden, styles[1])
        for level in range(1, len(self.to_image)):
            for number in (2 * level - 1, 2 * level):
                hidden = self.layers[number](hidden, styles[number], noise[number])
            # As in the authors' code, it shares its style with the convolution behind it.
            images_NCHW = self.filter.upsample(images_NCHW) + self._image(level, hidden, styles[2 * level + 1])
        return torch.tanh(images_NCHW)

    def _image(self, level: int, hidden_NCHW: Tensor, w_ND: Tensor) -> Tensor:
        to_image = self.to_image[level]
        image_NCHW: Tensor = to_image(hidden_NCHW, w_ND) + to_image.bias
        return image_NCHW

    @property
    def noise_shapes(self) -> list[tuple[int, int, int]]:
        """(1, H, W) of each layer's noise."""
        sizes = [START * 2 ** ((number + 1) // 2) for number in range(len(self.layers))]
        return [(1, size, size) for size in sizes]


class _ResidualBlock(nn.Module):
    """Halves the side, with a linear way around (figure 7c)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.main, self.filter = SmoothHalving(before, after), Binomial()
        self.skip = EqualizedConv2d(before, after, 1, gain=1)

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        added_NCHW: Tensor = self.main(hidden_NCHW) + self.skip(self.filter.downsample(hidden_NCHW))
        return added_NCHW * 0.5**0.5


def discriminator(image_size: int, channels: int, width: int) -> nn.Sequential:
    """Images (N, C, H, W) -> scores (N,)."""
    widths = widths_of(image_size, width)
    blocks = [_ResidualBlock(before, after) for after, before in itertools.pairwise(widths)][::-1]
    return nn.Sequential(EqualizedConv2d(channels, widths[-1], 1), nn.LeakyReLU(0.2), *blocks, Scores(widths[0]))
