"""Penalties that keep a discriminator or critic smooth, or the outputs of a layer different.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .adversarial import wide


def input_gradient(critic: Callable[[Tensor], Tensor], images_NCHW: Tensor) -> Tensor:
    """The gradient of each image's score with respect to the image, (N, C, H, W), which can be differentiated again.

    Args:
        critic: images (N, C, H, W) -> scores (N,), each of its own image only (no batch norm).
    """
    images_NCHW = images_NCHW.detach().requires_grad_()
    (gradient_NCHW,) = torch.autograd.grad(wide(critic(images_NCHW)).sum(), images_NCHW, create_graph=True)
    return gradient_NCHW


def gradient_penalty(
    gradient: Callable[[Tensor], Tensor], real_NCHW: Tensor, fake_NCHW: Tensor, mixing_N111: Tensor
) -> Tensor:
    """E[(|grad D(x^)| - 1)^2], x^ between a real and a generated image (Gulrajani 2017, arXiv 1704.00028, eq. 3).

    Args:
        gradient: images (N, C, H, W) -> grad D of each, with samples first; see `input_gradient`.
        mixing_N111: in [0, 1], how much of the real image.
    """
    fake_NCHW = fake_NCHW.to(real_NCHW.dtype)  # autocast returns bf16
    gradient_NCHW = gradient(torch.lerp(fake_NCHW, real_NCHW, mixing_N111))
    # The root of a sum of squares in bf16 would lose the difference from 1, which is what is penalised.
    norm_N = torch.linalg.vector_norm(
        gradient_NCHW.flatten(1), dim=1, dtype=torch.promote_types(gradient_NCHW.dtype, torch.float32)
    )
    return (norm_N - 1).square().mean()


def orthogonality(weights: Iterable[Tensor]) -> Tensor:
    """The sum over weights of |W W^T * (1 - I)|_F^2 (Brock 2018, arXiv 1809.11096, eq. 3), with one row of W per
    output: no two outputs shall be alike, while the length of each is free."""
    total: list[Tensor] = []
    for weight in weights:
        with torch.autocast(weight.device.type, enabled=False):  # which would multiply in bf16
            matrix = wide(weight).flatten(1)
            total.append(2 * (matrix @ matrix.T).tril(-1).square().sum())
    return torch.stack(total).sum()
