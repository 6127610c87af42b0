"""Normalisations whose gradients are right in every memory layout."""

from __future__ import annotations

from torch import nn


def instance_norm(maps: int) -> nn.GroupNorm:
    """Instance normalisation with gain and bias (Ulyanov 2016, arXiv 1607.08022): one group per feature map.

    Not `nn.InstanceNorm2d`: on a CPU its gradients are wrong, without a word, where the layer behind it is
    channels-last and the batch has more than one image (torch 2.13.0). tests/gans/test_norms.py shows it.
    """
    return nn.GroupNorm(maps, maps)
