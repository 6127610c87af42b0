"""The multi-scale networks of Mathieu 2015 (arXiv 1511.05440, section 3.2 and table 1): coarse frames first, then finer
ones, each a correction of the coarser ones.

Legend: N samples, P frames of the past, T frames of the future, C channels, H = W size of a frame, S scales.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import dcgan


def scaled(frames_NDHW: Tensor, num_halvings: int) -> Tensor:
    """Frames (as feature maps) of the size H / 2 ** num_halvings."""
    return F.avg_pool2d(frames_NDHW, 2**num_halvings) if num_halvings else frames_NDHW


class MultiScalePredictor(nn.Module):
    """Frames of the past (N, P C, H, W) and noise -> frames of the future of about [-1, 1], (N, T C, H, W), at each
    scale (equation 8).

    Departs from the paper, whose scales end in tanh: where nearly all pixels are black, it is soon so far into its
    saturation that no gradient brings a digit back.
    """

    def __init__(self, num_past: int, num_future: int, num_noise: int, width: int, num_scales: int) -> None:
        """Args:
        num_past, num_future: P C and T C.
        num_noise: further maps of what the coarsest scale is given.
        """
        super().__init__()
        self.num_scales, self.num_future, self.num_noise = num_scales, num_future, num_noise
        self.scales = nn.ModuleList(
            _convolutions(
                [num_past + (num_future if scale else num_noise), width, 2 * width, 2 * width, width], num_future
            )
            for scale in range(num_scales)
        )

    def forward(self, past_NDHW: Tensor, noise_NZ: Tensor) -> list[Tensor]:
        """The future, from the coarsest scale to the whole size."""
        found: list[Tensor] = []
        for number, network in enumerate(self.scales):
            past = scaled(past_NDHW, self.num_scales - 1 - number)
            if found:
                coarse = F.interpolate(found[-1], scale_factor=2, mode="nearest")
                found.append(coarse + network(torch.cat([past, coarse], dim=1)))
            else:
                noise = noise_NZ[:, :, None, None].expand(-1, -1, *past.shape[2:])
                found.append(network(torch.cat([past, noise.to(past.dtype)], dim=1)))
        return found


def _convolutions(widths: list[int], num_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(itertools.pairwise(widths)):
        kernel = 5 if number == 0 else 3
        layers += [nn.Conv2d(before, after, kernel, 1, kernel // 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], num_out, 3, 1, 1))


class MultiScaleDiscriminator(nn.Module):
    """Past and future together (N, (P + T) C, H, W) at each scale -> logits (N, S)."""

    def __init__(self, num_frames: int, image_size: int, width: int, num_scales: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            dcgan.discriminator(image_size // 2 ** (num_scales - 1 - scale), num_frames, width, batch_norm=False)
            for scale in range(num_scales)
        )

    def forward(self, frames: list[Tensor]) -> Tensor:
        """Args:
        frames: from the coarsest scale to the whole size.
        """
        return torch.stack([network(each) for network, each in zip(self.scales, frames, strict=True)], dim=1)
