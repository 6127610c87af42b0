"""The generator of CycleGAN (Zhu 2017, arXiv 1703.10593, appendix 7.2), after Johnson 2016 (arXiv 1603.08155).

Legend: N samples, C channels, H = W image size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .norms import InstanceNorm


def _norm_relu(maps: int) -> list[nn.Module]:
    return [InstanceNorm(maps), nn.ReLU()]


class ReflectedConv2d(nn.Conv2d):
    """A convolution of odd kernel size that keeps an image's size: beyond the border lies its reflection."""

    def forward(self, input: Tensor) -> Tensor:
        padded: Tensor = _Reflected.apply(input, self.kernel_size[0] // 2)
        return F.conv2d(padded, self.weight, self.bias)


class _Reflected(torch.autograd.Function):
    """Torch's reflection padding with a gradient of its own: torch's has no deterministic form on a GPU."""

    @staticmethod
    def forward(ctx: Any, images_NCHW: Tensor, border: int) -> Tensor:
        """Images with `border` rows and columns of their reflection on each side, without the outermost ones again."""
        ctx.border = border
        return F.pad(images_NCHW, (border,) * 4, mode="reflect")

    @staticmethod
    def backward(ctx: Any, *gradients_NCHW: Tensor) -> tuple[Tensor, None]:
        return _folded(_folded(gradients_NCHW[0], ctx.border, 2), ctx.border, 3), None


def _folded(padded: Tensor, border: int, dim: int) -> Tensor:
    """The sum over all places that show the same row or column: the border is turned over onto what it reflects."""
    side = padded.shape[dim] - 2 * border
    inside = padded.narrow(dim, border, side).clone(memory_format=torch.preserve_format)
    inside.narrow(dim, 1, border).add_(padded.narrow(dim, 0, border).flip(dim))
    inside.narrow(dim, side - 1 - border, border).add_(padded.narrow(dim, border + side, border).flip(dim))
    return inside


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions of `maps` feature maps, with reflected borders."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            ReflectedConv2d(maps, maps, 3, bias=False),
            *_norm_relu(maps),
            ReflectedConv2d(maps, maps, 3, bias=False),
            InstanceNorm(maps),
        )

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        added: Tensor = self.block(hidden_NCHW)
        return hidden_NCHW + added


class Corrected(nn.Module):
    """What a network of images adds to them, kept in [-1, 1] (Kupyn 2017, arXiv 1711.07064, section 3.2)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return (images_NCHW + self.network(images_NCHW)).clamp(-1, 1)


def generator(channels: int, width: int, num_blocks: int, is_correction: bool = False) -> nn.Module:
    """Images (N, C, H, W) -> images in [-1, 1], (N, C, H, W); H is a multiple of 4.

    The paper's c7s1-64, d128, d256, residual blocks, u128, u64, c7s1-3, with `width` for 64. No bias before a norm,
    because its gradient would be rounding errors alone, and Adam would turn these into full steps.

    Args:
        is_correction: what comes out is added to the image, and begins near zero.
    """
    network = nn.Sequential(
        ReflectedConv2d(channels, width, 7, bias=False),
        *_norm_relu(width),
        nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False),
        *_norm_relu(2 * width),
        nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=False),
        *_norm_relu(4 * width),
        *[ResidualBlock(4 * width) for _ in range(num_blocks)],
        nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, output_padding=1, bias=False),
        *_norm_relu(2 * width),
        nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1, bias=False),
        *_norm_relu(width),
        ReflectedConv2d(width, channels, 7),
        nn.Tanh(),
    )
    if not is_correction:
        return network
    last = network[-2]
    assert isinstance(last, ReflectedConv2d)
    nn.init.normal_(last.weight, 0.0, 1e-3)
    return Corrected(network)
