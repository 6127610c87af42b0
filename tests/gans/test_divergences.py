"""The table of f-GAN's divergences: conjugates, output activations, thresholds, and the bound at its optimum."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import lambertw
from torch import Tensor

from ganpipe import gans
from ganpipe.losses.divergences import Divergence, log_lambert_w_of_exp, table

PI = 0.3
TABLE = table(PI)
every_divergence = pytest.mark.parametrize("name", TABLE)
V = torch.linspace(-3, 3, 13, dtype=torch.float64)


def values(function: object, numbers: np.ndarray | list[float]) -> np.ndarray:
    return function(torch.tensor(np.asarray(numbers, dtype=np.float64))).numpy()  # type: ignore[operator, no-any-return]


def test_the_settings_name_them_all() -> None:
    choices = gans.load("fgan").Config.model_json_schema()["properties"]["divergence"]["enum"]
    assert choices == list(TABLE)
    assert len(TABLE) == 10


@every_divergence
def test_the_conjugate_is_the_supremum(name: str) -> None:
    """f*(t) = sup_u (u t - f(u)), found by numerical maximisation over log u."""
    row = TABLE[name]
    for v in (-1.5, -0.4, 0.0, 0.6, 1.5):
        t = float(values(row.activation, [v])[0])

        def negative(log_u: float, t: float = t) -> float:
            u = math.exp(log_u)
            return -(u * t - float(values(row.f, [u])[0]))

        found = minimize_scalar(negative, bounds=(-30, 15), method="bounded", options={"xatol": 1e-12})
        assert -found.fun == pytest.approx(float(values(row.conjugate, [t])[0]), abs=1e-6)


@every_divergence
def test_the_composition_is_the_conjugate_of_the_activation(name: str) -> None:
    row = TABLE[name]
    assert torch.allclose(row.conjugate_of_activation(V), row.conjugate(row.activation(V)), atol=1e-10)


@every_divergence
def test_the_activation_rises_and_the_threshold_is_the_slope_of_f_at_1(name: str) -> None:
    row = TABLE[name]
    assert bool((row.activation(V).diff() > 0).all())
    step = 1e-6
    slope = float((values(row.f, [1 + step]) - values(row.f, [1 - step]))[0]) / (2 * step)
    assert slope == pytest.approx(row.threshold, abs=1e-6)
    wanted = -2 * math.log(2) if name == "gan" else 0.0
    assert float(values(row.f, [1.0])[0]) == pytest.approx(wanted)


@pytest.fixture(scope="module")
def gaussians() -> tuple[Tensor, Tensor, Tensor]:
    """Densities of N(0, 1) and N(0.7, 1.2^2) on a fine grid, and its step."""
    x = torch.linspace(-9, 11, 4001, dtype=torch.float64)
    p, q = (torch.distributions.Normal(mean, deviation).log_prob(x).exp() for mean, deviation in ((0, 1), (0.7, 1.2)))
    return p, q, x[1] - x[0]


def _weighted_bound(row: Divergence, v: Tensor, weights: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    p, q, step = weights
    return ((p * row.activation(v) - q * row.conjugate_of_activation(v)) * step).sum()


@every_divergence
def test_a_free_discriminator_meets_the_divergence_of_two_gaussians(
    name: str, gaussians: tuple[Tensor, Tensor, Tensor]
) -> None:
    """One free output for each point of a grid, optimised; against the integral of q f(p / q)."""
    row, (p, q, step) = TABLE[name], gaussians
    p, q = p[900:3000], q[900:3000]  # further out the best output is too far from zero to be walked to
    exact = (q * row.f(p / q) * step).sum().item()
    v = torch.zeros_like(p, requires_grad=True)
    for _ in range(200):  # Newton's method, point by point: each output stands in its own term alone
        v.grad = None
        term = p * row.activation(v) - q * row.conjugate_of_activation(v)
        (slope,) = torch.autograd.grad(term.sum(), v, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), v)
        with torch.no_grad():
            # Where the term is not concave, a step up the slope.
            newton = torch.where(curvature < 0, -slope / curvature.clamp(max=-1e-300), slope.sign())
            v += newton.clamp(-1, 1)
    found = _weighted_bound(row, v.detach(), (p, q, step)).item()
    assert found == pytest.approx(exact, abs=2e-4)
    assert found <= exact + 1e-9, "the bound is one from below"


def test_kl_of_gaussians_is_the_closed_form(gaussians: tuple[Tensor, Tensor, Tensor]) -> None:
    p, q, step = gaussians
    found = (q * TABLE["kl"].f(p / q) * step).sum().item()
    assert found == pytest.approx(math.log(1.2) + (1 + 0.7**2) / (2 * 1.2**2) - 0.5, abs=1e-7)


@every_divergence
def test_the_gradient_vanishes_where_the_generator_is_right(name: str) -> None:
    """With p = q, no discriminator is better than the constant T = f'(1), which is a stationary point."""
    row = TABLE[name]
    low, high = torch.tensor(-30.0, dtype=torch.float64), torch.tensor(30.0, dtype=torch.float64)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if row.activation(middle) < row.threshold else (low, middle)
    v = low.clone().requires_grad_()
    samples = v.expand(7)
    bound = row.bound(samples, samples)
    (gradient,) = torch.autograd.grad(bound, v)
    assert abs(gradient.item()) < 1e-9
    assert bound.item() == pytest.approx(-2 * math.log(2) if name == "gan" else 0.0, abs=1e-9)


def test_lamberts_function_is_scipys() -> None:
    x = torch.linspace(-30, 30, 121, dtype=torch.float64, requires_grad=True)
    w = log_lambert_w_of_exp(x).exp()
    expected = lambertw(np.exp(x.detach().numpy())).real
    assert np.allclose(w.detach().numpy(), expected, rtol=1e-10)
    (slope,) = torch.autograd.grad(w.sum(), x)
    assert np.allclose(slope.numpy(), expected / (1 + expected), rtol=1e-10)


@every_divergence
def test_large_outputs_in_float32_stay_finite(name: str) -> None:
    row = TABLE[name]
    v = torch.tensor([-40.0, 0.0, 40.0], requires_grad=True)
    (row.activation(v).sum() + row.conjugate_of_activation(v).sum()).backward()
    assert v.grad is not None
    assert bool(torch.isfinite(v.grad).all())
