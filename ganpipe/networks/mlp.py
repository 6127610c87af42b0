"""Fully connected networks.

Legend: N samples, I inputs, U units, P pieces of a maxout unit, C channels, H height, W width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .norms import DenseBatchNorm


def mlp(sizes: Sequence[int], activation: Callable[[], nn.Module], batch_norm: bool = False) -> nn.Sequential:
    """Linear layers of the given sizes, inputs first, with `activation` between them and none after the last.

    Args:
        batch_norm: before each activation.
    """
    layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
    for num_in, num_out in itertools.pairwise(sizes[1:]):
        layers += [*([DenseBatchNorm(num_in)] if batch_norm else []), activation(), nn.Linear(num_in, num_out)]
    return nn.Sequential(*layers)


def image_generator(num_inputs: int, widths: Sequence[int], image_shape: tuple[int, int, int]) -> nn.Sequential:
    """(N, I) -> images in [-1, 1] of `image_shape` (C, H, W): ReLU between the layers, tanh at the end."""
    num_pixels = image_shape[0] * image_shape[1] * image_shape[2]
    layers = mlp([num_inputs, *widths, num_pixels], nn.ReLU)
    return nn.Sequential(*layers, nn.Tanh(), nn.Unflatten(1, image_shape))


def image_discriminator(image_shape: tuple[int, int, int], widths: Sequence[int]) -> nn.Sequential:
    """Images of `image_shape` (C, H, W) -> logits (N,): LeakyReLU(0.2) between the layers."""
    num_pixels = image_shape[0] * image_shape[1] * image_shape[2]
    layers = mlp([num_pixels, *widths, 1], lambda: nn.LeakyReLU(0.2, inplace=True))
    return nn.Sequential(nn.Flatten(), *layers, nn.Flatten(0))


def input_gradient(network: nn.Sequential, images_NCHW: Tensor) -> Tensor:
    """The gradient of each image's logit with respect to the image, (N, C * H * W), for an `image_discriminator`.

    It is a product: the weights of the layers and the slopes of the activations between them, last layer first. The
    slopes of a LeakyReLU are constants almost everywhere, so this product is a function of the weights that one
    backward pass differentiates; to differentiate a backward pass takes twice the multiplications.
    """
    slopes: list[Tensor] = []
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        hidden = images_NCHW.flatten(1)
        for layer in list(network)[1:-2]:
            if isinstance(layer, nn.Linear):
                hidden = layer(hidden)
            else:
                assert isinstance(layer, nn.LeakyReLU), layer
                # No tensor is made from a Python number: on a GPU that is a copy from the host, at every layer.
                slopes.append(torch.ones_like(hidden).masked_fill_(hidden <= 0, layer.negative_slope))
                hidden = hidden * slopes[-1]
    gradient = linear[-1].weight
    for layer, slope in zip(linear[-2::-1], slopes[::-1], strict=True):
        gradient = (gradient * slope) @ layer.weight
    return gradient


class Maxout(nn.Module):
    """The maximum over P affine pieces (Goodfellow 2013, arXiv 1302.4389, eq. 1): (N, I) -> (N, U)."""

    def __init__(self, num_inputs: int, num_units: int, num_pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_units * num_pieces)
        self.num_pieces = num_pieces

    def forward(self, inputs_NI: Tensor) -> Tensor:
        pieces_NUP: Tensor = self.linear(inputs_NI).unflatten(1, (-1, self.num_pieces))
        return torch.amax(pieces_NUP, dim=2)
