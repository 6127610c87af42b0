"""The networks of ProGAN (Karras 2017, arXiv 1710.10196, section 2 and table 2), which grow from 4 x 4 pixels.

Legend: N samples, Z latent size, C channels, H = W image size, S size of a level.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

START = 4
"""Side of the first level."""


class EqualizedConv2d(nn.Module):
    """A convolution whose weights are scaled by He's constant each time it is used (section 4.1)."""

    def __init__(self, num_in: int, num_out: int, kernel: int, gain: float = 2**0.5, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_out, num_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(num_out))
        self.scale = gain / math.sqrt(num_in * kernel**2)
        self.stride, self.padding = stride, kernel // 2 if stride == 1 else 0

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        return F.conv2d(hidden_NCHW, self.weight * self.scale, self.bias, self.stride, self.padding)


class EqualizedLinear(nn.Module):
    """The same for a fully connected layer.

    Args:
        learning_rate: times the optimiser's. Adam's steps do not depend on the scale of a gradient, so a weight that is
            stored larger by its inverse, and scaled back where it is used, changes more slowly (StyleGAN's mapping).
    """

    def __init__(self, num_in: int, num_out: int, gain: float = 2**0.5, learning_rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_out, num_in) / learning_rate)
        self.bias = nn.Parameter(torch.zeros(num_out))
        self.scale, self.learning_rate = gain / math.sqrt(num_in) * learning_rate, learning_rate

    def forward(self, hidden_ND: Tensor) -> Tensor:
        return F.linear(hidden_ND, self.weight * self.scale, self.bias * self.learning_rate)


def pixel_norm(hidden: Tensor) -> Tensor:
    """Each position's features with a mean square of 1 (section 4.2)."""
    return hidden * torch.rsqrt(hidden.square().mean(1, keepdim=True) + 1e-8)


def leaky(hidden: Tensor) -> Tensor:
    return F.leaky_relu(hidden, 0.2)


def _activated(hidden: Tensor) -> Tensor:
    return pixel_norm(leaky(hidden))


def num_levels(image_size: int) -> int:
    """From 4 x 4 to `image_size`."""
    return int(math.log2(image_size // START)) + 1


@dataclass(frozen=True)
class Growth:
    """Which level is on at which share of the training, and how far it is faded in (section 2).

    Attributes:
        image_size: H = W of the last level.
        growing: share of the training in which the networks grow, equally long at each level; then all are trained.
        fading: share of a level's time in which it is faded in.
    """

    image_size: int
    growing: float
    fading: float

    def at(self, fraction: float) -> tuple[int, float]:
        """Level and fade, as the networks take them."""
        return self.level(fraction), self.fade(fraction)

    def level(self, fraction: float) -> int:
        """The level, from 0 (4 x 4), when `fraction` of the training is over."""
        last = num_levels(self.image_size) - 1
        if not last or fraction >= self.growing:
            return last
        return min(last - 1, int(fraction / self.growing * last))

    def fade(self, fraction: float) -> float:
        """How far that level has replaced the one before, in (0, 1]."""
        if not self.growing:
            return 1.0
        time_per_level = self.growing / (num_levels(self.image_size) - 1)
        passed = fraction - self.level(fraction) * time_per_level
        return min(1.0, max(1e-3, passed / (time_per_level * self.fading)))


def widths_of(image_size: int, width: int) -> list[int]:
    """Feature maps of each level: `width` at the largest, doubling towards 4 x 4, at most 8 times `width`."""
    levels = num_levels(image_size)
    return [width * min(8, 2 ** (levels - 1 - level)) for level in range(levels)]


class _Level(nn.Module):
    """The generator's two convolutions of a size."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first, self.second = EqualizedConv2d(before, after, 3), EqualizedConv2d(after, after, 3)

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        return _activated(self.second(_activated(self.first(hidden_NCHW))))


class _HalvingLevel(nn.Module):
    """The discriminator's two convolutions of a size; halves the side."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first, self.second = EqualizedConv2d(before, before, 3), EqualizedConv2d(before, after, 3)

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        return F.avg_pool2d(leaky(self.second(leaky(self.first(hidden_NCHW)))), 2)


class Generator(nn.Module):
    """Latents (N, Z) -> images in [-1, 1], (N, C, H, W), of the size of the last level whatever level is on.

    Images end in tanh, which the paper does not have. Without it a background that is black or white everywhere is made
    only by weights that agree exactly, and a short training leaves it grey and noisy
    (docs/decisions/0069-images-end-in-tanh.md).
    """

    def __init__(self, num_latents: int, image_size: int, channels: int, width: int) -> None:
        super().__init__()
        widths = widths_of(image_size, width)
        self.image_size = image_size
        self.first = EqualizedLinear(num_latents, widths[0] * START**2, gain=2**0.5 / 4)
        self.start = EqualizedConv2d(widths[0], widths[0], 3)
        self.levels = nn.ModuleList(_Level(before, after) for before, after in itertools.pairwise(widths))
        self.to_image = nn.ModuleList(EqualizedConv2d(maps, channels, 1, gain=1) for maps in widths)

    def forward(self, z_NZ: Tensor, level: int, fade: float) -> Tensor:
        """Args:
        level: the largest level that is on, from 0.
        fade: in (0, 1], how far it has replaced the level before (figure 2).
        """
        hidden = _activated(self.first(pixel_norm(z_NZ)).unflatten(1, (-1, START, START)))
        hidden = before = _activated(self.start(hidden))
        for layers in list(self.levels)[:level]:
            before = _double(hidden)
            hidden = layers(before)
        images_NCHW: Tensor = self.to_image[level](hidden)
        if level and fade < 1:
            images_NCHW = torch.lerp(self.to_image[level - 1](before), images_NCHW, fade)
        return F.interpolate(torch.tanh(images_NCHW), (self.image_size, self.image_size), mode="nearest")


class Scores(nn.Module):
    """The last layers of a discriminator: `maps` feature maps of 4 x 4 pixels, (N, maps, 4, 4), -> scores (N,)."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.last = EqualizedConv2d(maps + 1, maps, 3)
        self.dense = EqualizedLinear(maps * START**2, maps)
        self.score = EqualizedLinear(maps, 1, gain=1)

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        hidden = leaky(self.last(with_deviation(hidden_NCHW)))
        scores_N: Tensor = self.score(leaky(self.dense(hidden.flatten(1)))).flatten()
        return scores_N


class Discriminator(nn.Module):
    """Images (N, C, H, W) of the last level's size -> scores (N,).

    Args:
        level: (maps before, maps after) -> a module that halves the side.
    """

    def __init__(
        self, image_size: int, channels: int, width: int, level: Callable[[int, int], nn.Module] = _HalvingLevel
    ) -> None:
        super().__init__()
        widths = widths_of(image_size, width)
        self.from_image = nn.ModuleList(EqualizedConv2d(channels, maps, 1) for maps in widths)
        self.levels = nn.ModuleList(level(after, before) for before, after in itertools.pairwise(widths))
        self.scores = Scores(widths[0])

    def forward(self, images_NCHW: Tensor, level: int, fade: float) -> Tensor:
        """Args as the generator's."""
        images = _shrunk(images_NCHW, START * 2**level)
        hidden = leaky(self.from_image[level](images))
        for number in range(level, 0, -1):
            hidden = self.levels[number - 1](hidden)
            if number == level and fade < 1:
                halved = leaky(self.from_image[level - 1](F.avg_pool2d(images, 2)))
                hidden = torch.lerp(halved, hidden, fade)
        scores_N: Tensor = self.scores(hidden)
        return scores_N


def with_deviation(hidden_NCHW: Tensor, group: int = 4) -> Tensor:
    """One more map: the standard deviation over groups of the batch, averaged over maps and positions (section 3).

    Args:
        group: samples of a group; all of the batch where it does not divide it.
    """
    num = len(hidden_NCHW)
    size = group if num % group == 0 else num
    grouped = hidden_NCHW.float().reshape(size, num // size, *hidden_NCHW.shape[1:])
    variance = (grouped - grouped.mean(0)).square().mean(0)  # torch's own `var` is slow over the first axis
    deviation = (variance + 1e-8).sqrt().mean((1, 2, 3))
    maps = deviation.repeat(size).reshape(num, 1, 1, 1).expand(-1, 1, *hidden_NCHW.shape[2:])
    return torch.cat([hidden_NCHW, maps.to(hidden_NCHW.dtype)], dim=1)


def faded(images_NCHW: Tensor, level: int, fade: float) -> Tensor:
    """Real images as they are while a level is faded in: between half and full sharpness of that level."""
    if not level or fade >= 1:
        return images_NCHW
    size = START * 2**level
    sharp = _shrunk(images_NCHW, size)
    soft = _double(F.avg_pool2d(sharp, 2))
    return F.interpolate(torch.lerp(soft, sharp, fade), images_NCHW.shape[2:], mode="nearest")


def _shrunk(images_NCHW: Tensor, size: int) -> Tensor:
    """Images as means of blocks. Not by adaptive pooling: its backward pass has no deterministic form on a GPU."""
    return F.avg_pool2d(images_NCHW, images_NCHW.shape[2] // size)


def _double(hidden_NCHW: Tensor) -> Tensor:
    return F.interpolate(hidden_NCHW, scale_factor=2, mode="nearest")
