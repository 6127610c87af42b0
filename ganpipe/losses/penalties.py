"""Penalties that keep a discriminator, critic or generator smooth, or the outputs of a layer different.

Legend: N samples, L layers that take a style, D style size, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .adversarial import wide


def input_gradient(critic: Callable[[Tensor], Tensor], images_NCHW: Tensor) -> Tensor:
    """The gradient of each image's score with respect to the image, (N, C, H, W), which can be differentiated again.

    Args:
        critic: images (N, C, H, W) -> scores (N,), each of its own image only (no batch norm).
    """
    images_NCHW = images_NCHW.detach().requires_grad_()
    return score_gradient(critic(images_NCHW), images_NCHW)


def score_gradient(scores_N: Tensor, images_NCHW: Tensor) -> Tensor:
    """The same for scores that are already there, of images that require a gradient."""
    (gradient_NCHW,) = torch.autograd.grad(wide(scores_N).sum(), images_NCHW, create_graph=True)
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


def squared_gradient_norm(gradient: Tensor) -> Tensor:
    """E[|grad D(x)|^2]. Half of it, times gamma, is R1 for real images and R2 for generated ones (Mescheder 2018, arXiv
    1801.04406, eq. 9 and 10).

    Args:
        gradient: grad D of each image, with samples first; see `input_gradient`.
    """
    return wide(gradient).square().flatten(1).sum(1).mean()


@torch.no_grad()
def clip_weights(network: nn.Module, limit: float) -> None:
    """Put every parameter into [-limit, limit] (Arjovsky 2017, arXiv 1701.07875, algorithm 1)."""
    parameters: list[Tensor] = list(network.parameters())
    torch._foreach_clamp_min_(parameters, -limit)
    torch._foreach_clamp_max_(parameters, limit)


def orthogonality(weights: Iterable[Tensor]) -> Tensor:
    """The sum over weights of |W W^T * (1 - I)|_F^2 (Brock 2018, arXiv 1809.11096, eq. 3), with one row of W per
    output: no two outputs shall be alike, while the length of each is free."""
    total: list[Tensor] = []
    for weight in weights:
        with torch.autocast(weight.device.type, enabled=False):  # which would multiply in bf16
            matrix = wide(weight).flatten(1)
            total.append(2 * (matrix @ matrix.T).tril(-1).square().sum())
    return torch.stack(total).sum()


def path_lengths(images_NCHW: Tensor, w_NLD: Tensor, directions_NCHW: Tensor) -> Tensor:
    """|J^T y| of each image, (N,), J the derivative of the image by its styles (Karras 2019, arXiv 1912.04958, eq. 4).

    As in the authors' code, y is divided by the root of H * W, and squares are averaged over the layers.

    Args:
        images_NCHW: computed from w_NLD.
        directions_NCHW: y, standard normal.
    """
    scale = (images_NCHW.shape[2] * images_NCHW.shape[3]) ** -0.5
    projected = (wide(images_NCHW) * directions_NCHW).sum() * scale
    (gradient_NLD,) = torch.autograd.grad(projected, w_NLD, create_graph=True)
    return wide(gradient_NLD).square().sum(2).mean(1).sqrt()
