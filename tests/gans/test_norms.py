"""Gradients do not depend on the memory layout in which the next layer hands them back."""

from __future__ import annotations

import torch
from torch import nn

from ganpipe.networks.norms import instance_norm


def gradients(norm: nn.Module, memory_format: torch.memory_format) -> list[torch.Tensor]:
    """Of the images and of the norm, with a convolution behind it."""
    torch.manual_seed(0)
    images_NCHW = torch.randn(3, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    behind = nn.Conv2d(4, 4, 3, 1, 1).double().to(memory_format=memory_format)  # type: ignore[call-overload]
    weights_NCHW = torch.randn(3, 4, 8, 8, dtype=torch.float64)
    return list(
        torch.autograd.grad((behind(norm(images_NCHW)) * weights_NCHW).sum(), [images_NCHW, *norm.parameters()])
    )


def test_instance_norm_learns_alike_in_both_layouts() -> None:
    norm = instance_norm(4).double()
    pairs = zip(gradients(norm, torch.contiguous_format), gradients(norm, torch.channels_last), strict=True)
    assert max(float((first - second).abs().max()) for first, second in pairs) < 1e-12


def test_it_is_instance_norm() -> None:
    images_NCHW = torch.randn(3, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = nn.InstanceNorm2d(4, affine=True).double()(images_NCHW)
    assert torch.allclose(instance_norm(4).double()(images_NCHW), expected, rtol=0, atol=1e-12)


def test_torchs_own_still_goes_wrong() -> None:
    """When this fails, torch has been mended, and `networks/norms.py` may take torch's."""
    norm = nn.InstanceNorm2d(4, affine=True).double()
    pairs = zip(gradients(norm, torch.contiguous_format), gradients(norm, torch.channels_last), strict=True)
    assert max(float((first - second).abs().max()) for first, second in pairs) > 0.1
