"""Class-conditional residual networks with self-attention and spectral normalisation, of SAGAN and BigGAN.

Conditional batch norm in the generator and a projection in the discriminator as in Miyato & Koyama 2018 (arXiv
1802.05637), self-attention as in Zhang 2018 (arXiv 1805.08318), first weights as in Brock 2018 (arXiv 1809.11096).

Legend: N samples, Z latent size, K classes, C channels, H = W image size, M feature maps, I inner maps of attention,
P positions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import spectral

START = 4
"""Side of the smallest feature maps."""
Affine = Callable[[int], nn.Module]
"""M -> a layer from a condition, whatever it is, to (N, M)."""


def num_blocks(image_size: int) -> int:
    """Blocks of a generator, each of which doubles the side."""
    return int(math.log2(image_size // START))


def _widths(image_size: int, width: int) -> list[int]:
    """Feature maps from the image side inwards to 4 x 4: doubling, at most 16 times `width` as in BigGAN."""
    return [width * min(16, 2**level) for level in range(num_blocks(image_size) + 1)]


def attention_size(image_size: int) -> int:
    """The side of the feature maps with attention, midway from 4 x 4 to the image: 16 of 32, and the paper's 32 of
    128."""
    return START * 2 ** math.ceil(num_blocks(image_size) / 2)


def _conv(num_in: int, num_out: int, kernel: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, kernel, padding=kernel // 2, bias=bias)


def _doubled(hidden_NMHW: Tensor) -> Tensor:
    return F.interpolate(hidden_NMHW, scale_factor=2, mode="nearest")


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain, around 1, and bias follow from a condition (Dumoulin 2016, arXiv 1610.07629)."""

    def __init__(self, maps: int, affine: Affine) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(maps, affine=False)
        self.gain, self.bias = affine(maps), affine(maps)

    def forward(self, hidden_NMHW: Tensor, condition: Tensor) -> Tensor:
        normed_NMHW: Tensor = self.norm(hidden_NMHW)
        gain_NM, bias_NM = 1 + self.gain(condition), self.bias(condition)
        gain_NM11, bias_NM11 = gain_NM[:, :, None, None], bias_NM[:, :, None, None]
        return normed_NMHW * gain_NM11.to(normed_NMHW.dtype) + bias_NM11.to(normed_NMHW.dtype)


class SelfAttention(nn.Module):
    """Every position attends to all (Zhang 2018, section 3): x + gamma * o(x), where gamma is learned from 0 on."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        inner = max(1, maps // 8)
        self.keys, self.queries = _conv(maps, inner, 1), _conv(maps, inner, 1)  # f and g
        self.values, self.output = _conv(maps, inner, 1), _conv(inner, maps, 1)  # h and v
        self.gamma = nn.Parameter(torch.zeros(()))

    def weights(self, hidden_NMHW: Tensor) -> Tensor:
        """beta, (N, P, P): how much each position (row) takes from each other (column); rows sum to 1 (eq. 1)."""
        keys_NIP, queries_NIP = self.keys(hidden_NMHW).flatten(2), self.queries(hidden_NMHW).flatten(2)
        return torch.bmm(queries_NIP.transpose(1, 2), keys_NIP).softmax(2)

    def forward(self, hidden_NMHW: Tensor) -> Tensor:
        values_NIP = self.values(hidden_NMHW).flatten(2)
        attended_NIP = torch.bmm(values_NIP, self.weights(hidden_NMHW).transpose(1, 2))
        added_NMHW: Tensor = self.output(attended_NIP.unflatten(2, hidden_NMHW.shape[2:]))
        return hidden_NMHW + self.gamma * added_NMHW


class GeneratorBlock(nn.Module):
    """Twice batch norm, ReLU and a 3 x 3 convolution; the first doubles the side.

    No layer before a batch norm has a bias: its gradient would be rounding errors alone, which Adam would turn into
    full steps.
    """

    def __init__(self, num_in: int, num_out: int, affine: Affine) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ConditionalBatchNorm(num_in, affine), ConditionalBatchNorm(num_out, affine)])
        self.convs = nn.ModuleList([_conv(num_in, num_out, 3), _conv(num_out, num_out, 3)])
        self.skip = _conv(num_in, num_out, 1)

    def forward(self, hidden_NMHW: Tensor, condition: Tensor) -> Tensor:
        added = self.convs[0](_doubled(F.relu(self.norms[0](hidden_NMHW, condition))))
        added = self.convs[1](F.relu(self.norms[1](added, condition)))
        return _doubled(self.skip(hidden_NMHW)) + added


class DiscriminatorBlock(nn.Module):
    """Twice ReLU and a 3 x 3 convolution, then, where `halves`, the mean of 2 x 2 positions.

    Args:
        is_first: its input is an image, which has no ReLU before the first convolution.
    """

    def __init__(self, num_in: int, num_out: int, is_first: bool, halves: bool) -> None:
        super().__init__()
        self.convs = nn.ModuleList([_conv(num_in, num_out, 3, bias=True), _conv(num_out, num_out, 3, bias=True)])
        self.skip = _conv(num_in, num_out, 1, bias=True)
        self.is_first, self.halves = is_first, halves

    def forward(self, hidden_NMHW: Tensor) -> Tensor:
        added = self.convs[0](hidden_NMHW if self.is_first else F.relu(hidden_NMHW))
        added = self.convs[1](F.relu(added))
        if self.halves:
            added, hidden_NMHW = F.avg_pool2d(added, 2), F.avg_pool2d(hidden_NMHW, 2)
        shortcut_NMHW: Tensor = self.skip(hidden_NMHW)
        return shortcut_NMHW + added


class Generator(nn.Module):
    """(N, Z) and a condition for each block -> images in [-1, 1], (N, C, H, W).

    Args:
        width: feature maps at the largest size; they double inwards.
        affine: from a block's condition to gains and biases of its batch norms.
    """

    def __init__(self, num_inputs: int, image_size: int, channels: int, width: int, affine: Affine) -> None:
        super().__init__()
        widths = _widths(image_size, width)[::-1]
        self.first = nn.Linear(num_inputs, widths[0] * START**2)
        self.blocks = nn.ModuleList(GeneratorBlock(*maps, affine) for maps in itertools.pairwise(widths))
        self.attended = num_blocks(attention_size(image_size)) - 1
        self.attention = SelfAttention(widths[self.attended + 1])
        self.to_image = nn.Sequential(
            nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True), _conv(widths[-1], channels, 3, bias=True), nn.Tanh()
        )
        _initialise(self)
        spectral.normalise(self)

    def forward(self, inputs_NZ: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        hidden = self.first(inputs_NZ).unflatten(1, (-1, START, START))
        for number, (block, condition) in enumerate(zip(self.blocks, conditions, strict=True)):
            hidden = block(hidden, condition)
            if number == self.attended:
                hidden = self.attention(hidden)
        images_NCHW: Tensor = self.to_image(hidden)
        return images_NCHW


class ProjectionDiscriminator(nn.Module):
    """Images (N, C, H, W) and labels (N,) -> scores (N,).

    psi(h) + <v(y), h> with the features h summed over positions, psi linear and v an embedding of the classes (Miyato &
    Koyama 2018, section 3 and figure 1d).
    """

    def __init__(self, num_classes: int, image_size: int, channels: int, width: int) -> None:
        super().__init__()
        widths = [channels, *_widths(image_size, width)]
        last = len(widths) - 2
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(*maps, is_first=number == 0, halves=number < last)
            for number, maps in enumerate(itertools.pairwise(widths))
        )
        self.attended = num_blocks(image_size) - num_blocks(attention_size(image_size)) - 1
        self.attention = SelfAttention(widths[self.attended + 1])
        self.score = nn.Linear(widths[-1], 1)
        self.embedding = nn.Embedding(num_classes, widths[-1])
        _initialise(self)
        spectral.normalise(self, (nn.Conv2d, nn.Linear, nn.Embedding))

    def features(self, images_NCHW: Tensor) -> Tensor:
        """h, (N, M)."""
        hidden = images_NCHW
        for number, block in enumerate(self.blocks):
            hidden = block(hidden)
            if number == self.attended:
                hidden = self.attention(hidden)
        return F.relu(hidden).sum((2, 3))

    def forward(self, images_NCHW: Tensor, label_N: Tensor) -> Tensor:
        features_NM = self.features(images_NCHW)
        projection_N = (self.embedding(label_N) * features_NM).sum(1)
        scores_N: Tensor = self.score(features_NM).flatten() + projection_N
        return scores_N


def _initialise(network: nn.Module) -> None:
    """Orthogonal weights: all their singular values are equal, so spectral normalisation shrinks none of them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight)
