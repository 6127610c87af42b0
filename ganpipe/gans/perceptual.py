"""The perceptual loss of restoring GANs: images are compared by a classifier that is never trained here.

The papers' classifier is VGG-19; here it is EfficientNet-Lite0, whose weights can be had without a download site.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..losses.reconstruction import squared
from ..networks import efficientnet


def classifier() -> dict[str, Callable[[], nn.Module]]:
    """For `Gan.frozen_networks`."""
    return {"classifier": efficientnet.published}


def content_distance(frozen: Mapping[str, nn.Module], made_NCHW: Tensor, wanted_NCHW: Tensor) -> Tensor:
    """The mean squared difference of inner feature maps (Johnson 2016, arXiv 1603.08155, eq. 2).

    Args:
        frozen: the networks that `classifier` named.
        made_NCHW, wanted_NCHW: grey or RGB, in [-1, 1]; the second gets no gradient.
    """
    network = frozen["classifier"]
    assert isinstance(network, efficientnet.EfficientNetLite0)
    with torch.no_grad():
        wanted = network.inner_features(wanted_NCHW.expand(-1, 3, -1, -1))
    return squared(network.inner_features(made_NCHW.expand(-1, 3, -1, -1)), wanted)
