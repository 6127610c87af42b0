"""Networks that complete images: a context encoder (Pathak 2016, arXiv 1604.07379, section 3) and a completion network
with two critics' views (Iizuka 2017, "Globally and locally consistent image completion", section 3).

Legend: N samples, C channels, H = W image size, P size of a patch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import dcgan


class ChannelwiseLinear(nn.Module):
    """A fully connected layer within each feature map (N, C, h, h), by which a place learns of all others; then a
    1 x 1 convolution, by which maps learn of each other (Pathak 2016, section 3.1)."""

    def __init__(self, maps: int, side: int) -> None:
        super().__init__()
        self.weight_CPP = nn.Parameter(torch.randn(maps, side**2, side**2) / side)
        self.mix = nn.Conv2d(maps, maps, 1)

    def forward(self, hidden_NChh: Tensor) -> Tensor:
        moved_CNP = hidden_NChh.flatten(2).transpose(0, 1) @ self.weight_CPP
        mixed: Tensor = self.mix(moved_CNP.transpose(0, 1).reshape(hidden_NChh.shape))
        return mixed


def context_encoder(image_size: int, channels: int, width: int) -> nn.Sequential:
    """Images with holes and their masks (N, C + 1, H, W) -> whole images in [-1, 1], (N, C, H, W)."""
    *layers, _, logit, _ = dcgan.discriminator(image_size, channels + 1, width)
    assert isinstance(logit, nn.Linear)
    maps = logit.in_features // 16
    _, _, *decoder = dcgan.generator(1, image_size, channels, width)  # without its projection from latents to 4 x 4
    return nn.Sequential(*layers, ChannelwiseLinear(maps, 4), *decoder)


def completion(channels: int, width: int) -> nn.Sequential:
    """Images with holes and their masks (N, C + 1, H, W) -> whole images in [-1, 1], (N, C, H, W).

    Dilated convolutions at a quarter of the size see far without losing where things are (table 1 of the paper).
    """
    layers = [
        *_convolution(channels + 1, width, 5),
        *_convolution(width, 2 * width, 3, stride=2),
        *_convolution(2 * width, 2 * width, 3),
        *_convolution(2 * width, 4 * width, 3, stride=2),
        *_convolution(4 * width, 4 * width, 3),
    ]
    for dilation in (2, 4, 8):
        layers += _convolution(4 * width, 4 * width, 3, dilation=dilation)
    layers += [
        *_convolution(4 * width, 4 * width, 3),
        *_doubling(4 * width, 2 * width),
        *_convolution(2 * width, 2 * width, 3),
        *_doubling(2 * width, width),
        nn.Conv2d(width, channels, 3, 1, 1),
        nn.Tanh(),
    ]
    return nn.Sequential(*layers)


def _convolution(before: int, after: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(before, after, kernel, stride, padding, dilation, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU()]


def _doubling(before: int, after: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


class GlobalLocalDiscriminator(nn.Module):
    """Whole images (N, C, H, W) and patches around the hole (N, C, P, P), P = H / 2 -> logits (N,)."""

    def __init__(self, image_size: int, channels: int, width: int, num_features: int) -> None:
        super().__init__()
        sizes = {"whole": image_size, "patch": image_size // 2}
        self.views = nn.ModuleDict(
            {name: dcgan.discriminator(size, channels, width, num_outputs=num_features) for name, size in sizes.items()}
        )
        self.joint = nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(2 * num_features, 1), nn.Flatten(0))

    def forward(self, images_NCHW: Tensor, mask_N1HW: Tensor) -> Tensor:
        patches_NCPP = patches_around(images_NCHW, mask_N1HW)
        features = [self.views["whole"](images_NCHW), self.views["patch"](patches_NCPP)]
        logits_N: Tensor = self.joint(torch.cat(features, dim=1))
        return logits_N


def patches_around(images_NCHW: Tensor, mask_N1HW: Tensor) -> Tensor:
    """Patches of half the side around the middle of what the mask covers, within the image, (N, C, H / 2, W / 2).

    By products with matrices of zeros and ones: how to index is known on the device alone, and the usual ways of
    indexing have no deterministic backward pass on a GPU.

    Args:
        mask_N1HW: above zero where the image was missing.
    """
    side = images_NCHW.shape[-1]
    size = side // 2
    is_missing_NHW = (mask_N1HW[:, 0] > 0).to(torch.float32)
    places_H = torch.arange(side, device=images_NCHW.device, dtype=torch.float32)
    total_N = is_missing_NHW.sum((1, 2)).clamp(min=1)
    chosen = []
    for axis in (2, 1):  # the sum over columns leaves rows
        middle_N = (is_missing_NHW.sum(axis) * places_H).sum(1) / total_N
        start_N = (middle_N - size / 2).round().clamp(0, side - size)
        wanted_NP = start_N[:, None] + places_H[:size]
        chosen.append((wanted_NP[:, :, None] == places_H).to(images_NCHW.dtype))
    rows_N1PH, columns_N1PW = (found.unsqueeze(1) for found in chosen)
    return rows_N1PH @ images_NCHW @ columns_N1PW.transpose(2, 3)
