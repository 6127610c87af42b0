"""Penalties that keep a discriminator or critic smooth.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real_NCHW: Tensor, fake_NCHW: Tensor, mixing_N111: Tensor
) -> Tensor:
    """E[(|grad D(x^)| - 1)^2], x^ between a real and a generated image (Gulrajani 2017, arXiv 1704.00028, eq. 3).

    Args:
        critic: images (N, C, H, W) -> scores (N,), each of its own image only (no batch norm).
        mixing_N111: in [0, 1], how much of the real image.
    """
    fake_NCHW = fake_NCHW.to(real_NCHW.dtype)  # autocast hands out bf16
    mixed_NCHW = torch.lerp(fake_NCHW, real_NCHW, mixing_N111).detach().requires_grad_()
    scores_N = critic(mixed_NCHW)
    (gradient_NCHW,) = torch.autograd.grad(scores_N.float().sum(), mixed_NCHW, create_graph=True)
    # The root of a sum of squares in bf16 would lose the very difference from 1 that is penalised.
    norm_N = torch.linalg.vector_norm(
        gradient_NCHW.flatten(1), dim=1, dtype=torch.promote_types(gradient_NCHW.dtype, torch.float32)
    )
    return (norm_N - 1).square().mean()
