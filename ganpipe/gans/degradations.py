"""Degraded images, for GANs that restore them: functions of the image and of draws, which depend on seed and sample.

Legend: N samples, C channels, H = W image size, T steps of a movement, K = W size of a kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .draws import Draws


def as_bytes_hold_them(images_NCHW: Tensor) -> Tensor:
    """Images in [-1, 1] at the 256 levels of a PNG, which is what a registered model is given."""
    return ((images_NCHW.float().clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


@dataclass(frozen=True)
class Smaller:
    """Images made smaller by `factor`, bicubic."""

    factor: int

    def __call__(self, images_NCHW: Tensor, draws: Draws) -> Tensor:
        small = F.interpolate(images_NCHW.float(), scale_factor=1 / self.factor, mode="bicubic", antialias=True)
        return as_bytes_hold_them(small).to(images_NCHW.dtype)


@dataclass(frozen=True)
class LowResolution:
    """Images made smaller by `factor` and as large again as they were, both bicubic."""

    factor: int

    def __call__(self, images_NCHW: Tensor, draws: Draws) -> Tensor:
        small = Smaller(self.factor)(images_NCHW, draws).float()
        large = F.interpolate(small, scale_factor=self.factor, mode="bicubic")
        return as_bytes_hold_them(large).to(images_NCHW.dtype)


@dataclass(frozen=True)
class Noisy:
    """Images with Gaussian noise of the standard deviation `noise`, as a share of the range of values."""

    noise: float

    def __call__(self, images_NCHW: Tensor, draws: Draws) -> Tensor:
        noise_NCHW = draws.normal(*images_NCHW.shape[1:]).to(images_NCHW.device, non_blocking=True)
        return as_bytes_hold_them(images_NCHW.float() + 2 * self.noise * noise_NCHW).to(images_NCHW.dtype)


@dataclass(frozen=True)
class Moved:
    """Images blurred by a camera that moves along a random path (Kupyn 2017, arXiv 1711.07064, algorithm 1).

    Attributes:
        length: of the longest path, as a share of an image's side.
    """

    length: float

    def __call__(self, images_NCHW: Tensor, draws: Draws) -> Tensor:
        num_images, channels, side, _ = images_NCHW.shape
        size = 2 * math.ceil(self.length * side / 2) + 1
        kernels_NKK = motion_kernels(draws, self.length * side, size).to(images_NCHW.device, non_blocking=True)
        wide_NCHW = images_NCHW.float()
        kernels = kernels_NKK.repeat_interleave(channels, 0).unsqueeze(1)
        border = size // 2
        padded = F.pad(wide_NCHW, [border] * 4, mode="replicate").reshape(1, -1, side + 2 * border, side + 2 * border)
        blurred = F.conv2d(padded, kernels, groups=num_images * channels)
        return as_bytes_hold_them(blurred.reshape(wide_NCHW.shape)).to(images_NCHW.dtype)


_NUM_STEPS = 96
"""Of a path; 2,000 in the paper, at up to 60 pixels."""
_CHANCE_OF_SHAKE = 0.001 * 2000 / _NUM_STEPS
"""p_s, for as many shakes in fewer steps."""


def motion_paths(draws: Draws, length: float) -> Tensor:
    """Where the camera is at each step, complex numbers, (N, T), in pixels.

    Args:
        length: of the path, in pixels.
    """
    chances_N4 = draws.uniform(4)
    inertia_N, big_N, gaussian_N = 0.7 * chances_N4[:, 0], 0.2 * chances_N4[:, 1], 0.7 * chances_N4[:, 2]
    step = length / (_NUM_STEPS - 1)
    velocity_N = torch.polar(torch.full_like(inertia_N, step), 2 * math.pi * chances_N4[:, 3])
    shakes_NT, turns_NT = draws.uniform(_NUM_STEPS), draws.uniform(_NUM_STEPS) - 0.5
    random_NT = torch.view_as_complex(draws.normal(_NUM_STEPS, 2).contiguous())
    places = [torch.zeros_like(velocity_N)]
    for number in range(1, _NUM_STEPS):
        is_shaken_N = shakes_NT[:, number] < big_N * _CHANCE_OF_SHAKE
        shake_N = 2 * velocity_N * torch.polar(torch.ones_like(inertia_N), math.pi + turns_NT[:, number])
        change_N = torch.where(is_shaken_N, shake_N, 0)
        change_N = change_N + (gaussian_N * random_NT[:, number] - inertia_N * places[-1]) * step
        velocity_N = velocity_N + change_N
        velocity_N = velocity_N / velocity_N.abs().clamp(min=1e-8) * step
        places.append(places[-1] + velocity_N)
    return torch.stack(places, dim=1)


def motion_kernels(draws: Draws, length: float, size: int) -> Tensor:
    """How long the camera was at each pixel, (N, K, K), with a sum of 1; the path's middle lies in the kernel's.

    Args:
        length: of the paths, in pixels.
        size: K, odd.
    """
    path_NT2 = torch.view_as_real(motion_paths(draws, length))
    middle_N12 = (path_NT2.amax(1, keepdim=True) + path_NT2.amin(1, keepdim=True)) / 2
    offsets_K = torch.arange(size) - size // 2
    # Each step's time is shared by the nearest pixels: (N, T, K) is how near a pixel's row or column is, in [0, 1].
    rows_NTK, columns_NTK = (
        (1 - (path_NT2[:, :, axis, None] - middle_N12[:, :, axis, None] - offsets_K).abs()).clamp(min=0)
        for axis in (1, 0)
    )
    kernels_NKK = rows_NTK.transpose(1, 2) @ columns_NTK
    return kernels_NKK / kernels_NKK.sum((1, 2), keepdim=True)
