"""The multi-scale networks of Mathieu 2015 (arXiv 1511.05440, section 3.2 and table 1): coarse frames first, then finer
ones, each a correction of the coarser ones.

Legend: N samples, P frames of the past, C channels, D maps of several frames, H = W size of a frame, S scales.
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
    """Frames of the past (N, P C, H, W) and noise -> the next frame, of about [-1, 1], (N, C, H, W), at each scale
    (equation 8).

    Departs from the paper, whose scales end in tanh: where nearly all pixels are black, it is soon so far into its
    saturation that no gradient brings a digit back. Its convolutions see blocks of 2 x 2 pixels: a quarter of the
    multiplications, and a view that is twice as wide.
    """

    def __init__(self, num_past: int, channels: int, num_noise: int, width: int, num_scales: int) -> None:
        """Args:
        num_past: P C.
        num_noise: further maps of what the coarsest scale is given.
        """
        super().__init__()
        self.num_scales, self.channels = num_scales, channels
        self.scales = nn.ModuleList(
            _convolutions([num_past + (channels if scale else num_noise), width, 2 * width, 2 * width, width], channels)
            for scale in range(num_scales)
        )

    def forward(self, past_NDHW: Tensor, noise_NZ: Tensor) -> list[Tensor]:
        """The next frame, from the coarsest scale to the whole size."""
        found: list[Tensor] = []
        for number, network in enumerate(self.scales):
            past = scaled(past_NDHW, self.num_scales - 1 - number)
            if found:
                coarse = F.interpolate(found[-1], scale_factor=2, mode="nearest")
                found.append(coarse + network(torch.cat([past, coarse], dim=1)))
            else:
                noise = noise_NZ[:, :, None, None].expand(-1, -1, *past.shape[2:])
                last = past[:, -self.channels :]
                found.append(last + network(torch.cat([past, noise.to(past.dtype)], dim=1)))
        return found


def _convolutions(widths: list[int], num_out: int) -> nn.Sequential:
    """On blocks of 2 x 2 pixels. The last layer begins at zero: the frame then is the last one."""
    layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
    for number, (before, after) in enumerate(itertools.pairwise([4 * widths[0], *widths[1:]])):
        kernel = 5 if number == 0 else 3
        layers += [nn.Conv2d(before, after, kernel, 1, kernel // 2), nn.ReLU()]
    last = nn.Conv2d(widths[-1], 4 * num_out, 3, 1, 1)
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last, nn.PixelShuffle(2))


class MultiScaleDiscriminator(nn.Module):
    """Frames in a row (N, D, H, W) at each scale -> logits (N, S)."""

    def __init__(self, num_frames: int, image_size: int, width: int, num_scales: int) -> None:
        """Args:
        num_frames: D.
        """
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
