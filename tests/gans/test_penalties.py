"""Penalties of a discriminator's or a generator's gradient, against what is known in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from ganpipe.losses import penalties

RANDOM = torch.Generator().manual_seed(0)


def images(num_samples: int = 5) -> Tensor:
    return torch.randn(num_samples, 2, 3, 3, dtype=torch.float64, generator=RANDOM)


def test_the_squared_gradient_norm_of_a_quadratic() -> None:
    """D(x) = x^T A x / 2 + b^T x has the gradient A x + b for a symmetric A."""
    root, shift = (torch.randn(*shape, dtype=torch.float64, generator=RANDOM) for shape in ((18, 18), (18,)))
    matrix, x = (root + root.T).requires_grad_(), images()

    def quadratic(images_NCHW: Tensor) -> Tensor:
        x_ND = images_NCHW.flatten(1)
        return (x_ND @ matrix * x_ND).sum(1) / 2 + x_ND @ shift

    found = penalties.squared_gradient_norm(penalties.input_gradient(quadratic, x))
    gradient_ND = x.flatten(1) @ matrix + shift
    assert torch.allclose(found, (gradient_ND**2).sum() / len(x), rtol=1e-12)
    # It is to be minimised: its own gradient, of |A x + b|^2 averaged over x, is 2 (A x + b) x^T.
    (found_slope,) = torch.autograd.grad(found, matrix)
    slope = 2 * gradient_ND.T @ x.flatten(1) / len(x)
    assert torch.allclose(found_slope + found_slope.T, slope + slope.T, rtol=1e-10)


def test_it_is_computed_in_float32_where_networks_compute_in_bf16() -> None:
    gradient = torch.full((4, 1, 32, 32), 0.1).bfloat16()
    found = penalties.squared_gradient_norm(gradient)
    assert found.dtype == torch.float32
    assert torch.allclose(found, gradient.double().square().sum().float() / 4, rtol=1e-6)
