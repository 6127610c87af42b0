"""The critic of StarGAN (Choi 2018, arXiv 1711.09020, table 6), for any power-of-two image size.

Legend: N samples, K domains, C channels, H = W image size.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class Critic(nn.Module):
    """Images (N, C, H, W) -> scores of patches (N, 1, h, h) and logits of the domain (N, K); no normalisation.

    Convolutions halve the side down to 4 x 4 pixels; 2 x 2 in the paper, at 128 pixels.
    """

    def __init__(self, image_size: int, channels: int, width: int, num_domains: int) -> None:
        super().__init__()
        num_halvings = max(1, image_size.bit_length() - 3)
        widths = [channels, *(width * min(8, 2**level) for level in range(num_halvings))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.01)]
        self.maps = nn.Sequential(*layers)
        self.score = nn.Conv2d(widths[-1], 1, 3, 1, 1, bias=False)
        side = image_size // 2**num_halvings
        self.classify = nn.Sequential(nn.Conv2d(widths[-1], num_domains, side, bias=False), nn.Flatten())

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps(images_NCHW)
        return self.score(maps), self.classify(maps)
