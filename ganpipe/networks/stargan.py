"""The networks of StarGAN (Choi 2018, arXiv 1711.09020, tables 5 and 6), for any power-of-two image size.

Legend: N samples, K domains, C channels, M feature maps, H = W image size.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .norms import normalised
from .resnet import ReflectedConv2d


class DomainNorm(nn.Module):
    """Instance norm with a gain and a bias per domain (Dumoulin 2017, arXiv 1610.07629, equation 5).

    In the paper the domain enters as channels beside the image's. They are the same everywhere, and the next instance
    norm takes away what is the same everywhere.
    """

    def __init__(self, num_domains: int, maps: int) -> None:
        super().__init__()
        self.gain, self.bias = nn.Embedding(num_domains, maps), nn.Embedding(num_domains, maps)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, hidden_NMHW: Tensor, domain_N: Tensor) -> Tensor:
        gain_NM, bias_NM = self.gain(domain_N), self.bias(domain_N)
        return torch.addcmul(bias_NM[..., None, None], normalised(hidden_NMHW, 1e-5), gain_NM[..., None, None])


class _Block(nn.Module):
    """Two 3 x 3 convolutions that are added to what they are given."""

    def __init__(self, num_domains: int, maps: int) -> None:
        super().__init__()
        self.first, self.second = (ReflectedConv2d(maps, maps, 3, bias=False) for _ in range(2))
        self.first_norm, self.second_norm = (DomainNorm(num_domains, maps) for _ in range(2))

    def forward(self, hidden_NMHW: Tensor, domain_N: Tensor) -> Tensor:
        added_NMHW = F.relu(self.first_norm(self.first(hidden_NMHW), domain_N))
        added: Tensor = self.second_norm(self.second(added_NMHW), domain_N)
        return hidden_NMHW + added


class Generator(nn.Module):
    """Images (N, C, H, W) and domains (N,) -> images in [-1, 1]; H is a multiple of 4.

    Attributes:
        is_correction: what the network makes is added to the image, and begins near zero. Black may become white.
    """

    def __init__(self, channels: int, width: int, num_blocks: int, num_domains: int, is_correction: bool) -> None:
        super().__init__()
        self.is_correction = is_correction
        convs: list[nn.Module] = [
            ReflectedConv2d(channels, width, 7, bias=False),
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False),
        ]
        ups: list[nn.Module] = [
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
        ]
        self.down, self.up = nn.ModuleList(convs), nn.ModuleList(ups)
        self.down_norms = nn.ModuleList(DomainNorm(num_domains, maps) for maps in (width, 2 * width, 4 * width))
        self.up_norms = nn.ModuleList(DomainNorm(num_domains, maps) for maps in (2 * width, width))
        self.blocks = nn.ModuleList(_Block(num_domains, 4 * width) for _ in range(num_blocks))
        self.last = ReflectedConv2d(width, channels, 7)
        if is_correction:
            nn.init.normal_(self.last.weight, 0.0, 1e-3)

    def forward(self, images_NCHW: Tensor, domain_N: Tensor) -> Tensor:
        hidden = images_NCHW
        for conv, norm in zip(self.down, self.down_norms, strict=True):
            hidden = F.relu(norm(conv(hidden), domain_N))
        for block in self.blocks:
            hidden = block(hidden, domain_N)
        for conv, norm in zip(self.up, self.up_norms, strict=True):
            hidden = F.relu(norm(conv(hidden), domain_N))
        made_NCHW = torch.tanh(self.last(hidden))
        return (images_NCHW + 2 * made_NCHW).clamp(-1, 1) if self.is_correction else made_NCHW


class Critic(nn.Module):
    """Images (N, C, H, W) -> scores of patches (N, 1, h, h) and logits of K classes (N, K); no normalisation.

    Convolutions halve the side down to 4 x 4 pixels; 2 x 2 in the paper, at 128 pixels.
    """

    def __init__(self, image_size: int, channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        num_halvings = max(1, image_size.bit_length() - 3)
        widths = [channels, *(width * min(8, 2**level) for level in range(num_halvings))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.01)]
        self.maps = nn.Sequential(*layers)
        self.score = nn.Conv2d(widths[-1], 1, 3, 1, 1, bias=False)
        side = image_size // 2**num_halvings
        self.classify = nn.Sequential(nn.Conv2d(widths[-1], num_classes, side, bias=False), nn.Flatten())

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps(images_NCHW)
        return self.score(maps), self.classify(maps)
