"""The networks of pix2pixHD (Wang 2018, arXiv 1711.11585, section 3.2): coarse to fine, and critics at several scales.

Legend: N samples, C channels, H = W image size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .norms import InstanceNorm
from .resnet import ReflectedConv2d, ResidualBlock


def _norm_relu(maps: int) -> list[nn.Module]:
    return [InstanceNorm(maps), nn.ReLU()]


class CoarseGenerator(nn.Module):
    """Images (N, C, H, W) -> feature maps (N, width, H, W), of which `to_image` makes images in [-1, 1]."""

    def __init__(self, num_in: int, num_out: int, width: int, num_blocks: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            ReflectedConv2d(num_in, width, 7, bias=False),
            *_norm_relu(width),
            nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False),
            *_norm_relu(2 * width),
            *[ResidualBlock(2 * width) for _ in range(num_blocks)],
            nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1, bias=False),
            *_norm_relu(width),
        )
        self.to_image = nn.Sequential(ReflectedConv2d(width, num_out, 7), nn.Tanh())

    def forward(self, images_NCHW: Tensor) -> Tensor:
        maps: Tensor = self.maps(images_NCHW)
        return maps


class CoarseToFineGenerator(nn.Module):
    """A coarse generator at half the size, and an enhancer at the whole size, which adds its own feature maps of half
    the size to those of the coarse one (figure 3)."""

    def __init__(self, num_in: int, num_out: int, width: int, num_blocks: int) -> None:
        super().__init__()
        self.coarse = CoarseGenerator(num_in, num_out, 2 * width, num_blocks)
        self.halve = nn.Sequential(
            ReflectedConv2d(num_in, width, 7, bias=False),
            *_norm_relu(width),
            nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False),
            *_norm_relu(2 * width),
        )
        self.enhance = nn.Sequential(
            *[ResidualBlock(2 * width) for _ in range(num_blocks)],
            nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1, bias=False),
            *_norm_relu(width),
            ReflectedConv2d(width, num_out, 7),
            nn.Tanh(),
        )

    def forward(self, source_NCHW: Tensor, is_coarse: bool) -> Tensor:
        """Images in [-1, 1]: of half the size by the coarse generator alone, or of the whole size."""
        coarse_maps = self.coarse(F.avg_pool2d(source_NCHW, 2))
        images_NCHW: Tensor
        if is_coarse:
            images_NCHW = self.coarse.to_image(coarse_maps)
        else:
            images_NCHW = self.enhance(self.halve(source_NCHW) + coarse_maps)
        return images_NCHW


class PatchCritic(nn.Module):
    """Images (N, C, H, W) -> its layers' feature maps, of which the last are scores of patches (N, 1, H', W')."""

    def __init__(self, num_in: int, width: int, num_halvings: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Conv2d(num_in, width, 4, 2, 1), nn.LeakyReLU(0.2))])
        for level in range(1, num_halvings):
            maps = width * 2**level
            convolution = nn.Conv2d(maps // 2, maps, 4, 2, 1, bias=False)
            self.layers.append(nn.Sequential(convolution, InstanceNorm(maps), nn.LeakyReLU(0.2)))
        self.layers.append(nn.Conv2d(width * 2 ** (num_halvings - 1), 1, 3, 1, 1))

    def forward(self, images_NCHW: Tensor) -> list[Tensor]:
        found = [images_NCHW]
        for layer in self.layers:
            found.append(layer(found[-1]))
        return found[1:]


class MultiScaleCritic(nn.Module):
    """Critics of equal networks, each of which sees images of half the size of the one before (section 3.2)."""

    def __init__(self, num_in: int, width: int, num_scales: int) -> None:
        super().__init__()
        self.critics = nn.ModuleList(PatchCritic(num_in, width) for _ in range(num_scales))

    def forward(self, images_NCHW: Tensor) -> list[list[Tensor]]:
        """The feature maps of each critic, whose last are its scores."""
        found = []
        for critic in self.critics:
            found.append(critic(images_NCHW))
            images_NCHW = F.avg_pool2d(images_NCHW, 2)
        return found


def scores_of(maps: list[list[Tensor]]) -> Tensor:
    """The scores of all critics, (N, number of patches)."""
    return torch.cat([critic[-1].flatten(1) for critic in maps], dim=1)
