"""The networks of StackGAN (Zhang 2016, arXiv 1612.03242, section 3 and figure 2), for any power-of-two image size.

Legend: N samples, D units of an embedding, K units of a condition, Z latent size, C channels, h = H / 4 size of the
first stage's images, H size of the second stage's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import dcgan
from .words import WordEncoder

_NEARLY = 0.9
"""What becomes of white and black where the second stage begins, so that a gradient remains."""


def enlarged(small_NChh: Tensor) -> Tensor:
    """Small images four times as large, (N, C, H, H), interpolated linearly in both directions: squares of 4 x 4 equal
    pixels had to be undone. By products of matrices, whose gradients a GPU can repeat."""
    each_hh = torch.eye(small_NChh.shape[-1], dtype=small_NChh.dtype, device=small_NChh.device)
    shares_hH = F.interpolate(each_hh[None], scale_factor=4, mode="linear")[0]
    with torch.autocast(small_NChh.device.type, enabled=False):
        return shares_hH.T @ small_NChh @ shares_hH


class Conditioning(nn.Module):
    """Conditioning augmentation (section 3.2): token numbers (N, L) -> mean and log variance of what the generator is
    given for these words, each (N, K)."""

    def __init__(self, num_words: int, num_units: int, num_conditions: int) -> None:
        super().__init__()
        self.encoder = WordEncoder(num_words, num_units)
        self.project = nn.Linear(num_units, 2 * num_conditions)

    def forward(self, tokens_NL: Tensor) -> tuple[Tensor, Tensor]:
        mean_NK, log_variance_NK = self.project(self.encoder(tokens_NL)).chunk(2, dim=1)
        return mean_NK, log_variance_NK


class FirstGenerator(nn.Module):
    """Latents (N, Z) and conditions (N, K) -> small images in [-1, 1], (N, C, h, h)."""

    def __init__(
        self, words: tuple[int, int], num_conditions: int, num_latents: int, image_size: int, channels: int, width: int
    ) -> None:
        super().__init__()
        self.conditioning = Conditioning(*words, num_conditions)
        self.images = dcgan.generator(num_latents + num_conditions, image_size, channels, width)

    def forward(self, z_NZ: Tensor, conditions_NK: Tensor) -> Tensor:
        images_NChh: Tensor = self.images(torch.cat([z_NZ, conditions_NK.to(z_NZ.dtype)], dim=1))
        return images_NChh


class _Residual(nn.Module):
    def __init__(self, maps: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*_convolution(maps, maps), nn.Conv2d(maps, maps, 3, 1, 1, bias=False))
        self.norm = nn.BatchNorm2d(maps)

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        return F.relu(hidden_NCHW + self.norm(self.block(hidden_NCHW)))


def _convolution(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


def _upsampling(before: int, after: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


class SecondGenerator(nn.Module):
    """Small images (N, C, h, h) and conditions (N, K) -> images in [-1, 1], (N, C, H, H), H = 4 h.

    The conditions join the small image's feature maps; residual blocks, and two doublings (section 3.4). Departs from
    the paper, where all of the large image comes out of these: here it is a correction of the small image, four times
    as large, so that the second stage of a short training begins where the first ended.
    """

    def __init__(self, words: tuple[int, int], num_conditions: int, channels: int, width: int, num_blocks: int) -> None:
        super().__init__()
        self.conditioning = Conditioning(*words, num_conditions)
        self.encode = nn.Sequential(*_convolution(channels, 2 * width))
        self.decode = nn.Sequential(
            *_convolution(2 * width + num_conditions, 2 * width),
            *[_Residual(2 * width) for _ in range(num_blocks)],
            *_upsampling(2 * width, width),
            *_upsampling(width, width),
            nn.Conv2d(width, channels, 3, 1, 1),
        )

    def forward(self, small_NChh: Tensor, conditions_NK: Tensor) -> Tensor:
        maps_NChh = self.encode(small_NChh)
        conditions_NKhh = conditions_NK[:, :, None, None].expand(-1, -1, *maps_NChh.shape[2:])
        correction_NCHW = self.decode(torch.cat([maps_NChh, conditions_NKhh.to(maps_NChh.dtype)], dim=1))
        images_NCHW: Tensor = torch.tanh(torch.atanh(_NEARLY * enlarged(small_NChh)) + correction_NCHW)
        return images_NCHW
