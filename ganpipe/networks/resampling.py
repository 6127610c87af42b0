"""Down- and upsampling by two with a binomial filter, which leaves out what the smaller size cannot hold (Zhang 2019,
arXiv 1904.11486).

Legend: N samples, C channels, H = W image size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Binomial(nn.Module):
    """The filter [1 3 3 1] in both directions, with a sum of 1; beyond its border an image is zero.

    Upsampling by zeros between the pixels and this filter is the same as repeating the pixels and the filter [1 2 1],
    because [1 1] * [1 2 1] = [1 3 3 1]: that is StyleGAN's way.
    """

    kernel_11KK: Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        # A constant is in no checkpoint, and in no average of weights.
        self.register_buffer("kernel_11KK", torch.outer(weights, weights)[None, None], persistent=False)

    def _per_map(self, num_maps: int) -> Tensor:
        return self.kernel_11KK.repeat(num_maps, 1, 1, 1)

    def smooth(self, hidden_NCHW: Tensor, padding: int) -> Tensor:
        """(N, C, H, W) -> (N, C, H + 2 padding - 3, ...)."""
        num_maps = hidden_NCHW.shape[1]
        return F.conv2d(hidden_NCHW, self._per_map(num_maps), padding=padding, groups=num_maps)

    def downsample(self, hidden_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / 2, W / 2)."""
        # The backward pass of a convolution per map with a stride takes ten times as long on a CPU.
        return self.smooth(hidden_NCHW, padding=1)[:, :, ::2, ::2]

    def upsample(self, hidden_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 2H, 2W), as bright as before."""
        num_maps = hidden_NCHW.shape[1]
        return F.conv_transpose2d(hidden_NCHW, 4 * self._per_map(num_maps), stride=2, padding=1, groups=num_maps)

    def upsampling_convolution(self, hidden_NCHW: Tensor, weight_OIKK: Tensor) -> Tensor:
        """A 3 x 3 convolution of the upsampled image, (N, O, 2H, 2W).

        The filter comes last, which is the same away from the border, and takes a quarter of the multiplications.
        """
        spread = F.conv_transpose2d(hidden_NCHW, 4 * weight_OIKK.transpose(0, 1), stride=2)
        return self.smooth(spread, padding=1)
