"""The f-divergences of f-GAN (Nowozin 2016, arXiv 1606.00709, tables 1, 2, 5 and 6).

Legend: u = p(x) / q(x) > 0; t a value of the variational function T; v what the discriminator puts out, any number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .adversarial import wide

Function = Callable[[Tensor], Tensor]
_LOG_2 = math.log(2)
_NEWTON_STEPS = 12


@dataclass(frozen=True)
class Divergence:
    """A row of the table.

    Attributes:
        f: u -> f(u), convex, with f(1) = 0 but for `gan`, whose divergence is 2 JS - log 4.
        conjugate: t -> f*(t) = sup_u (u t - f(u)).
        activation: v -> t = g_f(v), rising, into the domain of f*.
        conjugate_of_activation: v -> f*(g_f(v)), written so that nothing overflows or cancels before it must.
        threshold: f'(1): x is taken for real where T(x) is above.
    """

    f: Function
    conjugate: Function
    activation: Function
    conjugate_of_activation: Function
    threshold: float

    def bound(self, real_v: Tensor, fake_v: Tensor) -> Tensor:
        """E_p[T(x)] - E_q[f*(T(x))], at most the divergence of p from q (eq. 4 and 6)."""
        return self.activation(wide(real_v)).mean() - self.conjugate_of_activation(wide(fake_v)).mean()


def log_lambert_w_of_exp(x: Tensor) -> Tensor:
    """y with y + exp(y) = x, so that exp(y) = W(exp(x)), Lambert's function; differentiable."""
    with torch.no_grad():
        y = torch.where(x > 1, x.clamp(min=1).log(), x)
        for _ in range(_NEWTON_STEPS):
            y = y - (y.exp() + y - x) / (y.exp() + 1)
    # One more step of Newton's has the derivative 1 / (1 + exp(y)) with respect to x, which is that of y.
    return y - (y.exp() + y - x) / (y.exp() + 1)


def _jeffrey_conjugate(t: Tensor) -> Tensor:
    log_w = log_lambert_w_of_exp(1 - t)
    return log_w.exp() + (-log_w).exp() + t - 2


def _log_1_minus_exp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0."""
    return (-torch.expm1(x)).log()


def table(pi: float = 0.5) -> dict[str, Divergence]:
    """All divergences by name.

    The rising form of each output activation, as section 3.2 asks for: -exp(-v), 1 - exp(-v).

    Args:
        pi: in (0, 1), the weight of p in the weighted Jensen-Shannon divergence.
    """
    return {
        "total_variation": Divergence(
            lambda u: 0.5 * (u - 1).abs(), lambda t: t, lambda v: 0.5 * v.tanh(), lambda v: 0.5 * v.tanh(), 0.0
        ),
        "kl": Divergence(lambda u: u * u.log(), lambda t: (t - 1).exp(), lambda v: v, lambda v: (v - 1).exp(), 1.0),
        "reverse_kl": Divergence(
            lambda u: -u.log(), lambda t: -1 - (-t).log(), lambda v: -(-v).exp(), lambda v: v - 1, -1.0
        ),
        "pearson_chi_squared": Divergence(
            lambda u: (u - 1).square(),
            lambda t: 0.25 * t.square() + t,
            lambda v: v,
            lambda v: 0.25 * v.square() + v,
            0.0,
        ),
        "neyman_chi_squared": Divergence(
            lambda u: (1 - u).square() / u,
            lambda t: 2 - 2 * (1 - t).sqrt(),
            lambda v: -torch.expm1(-v),
            lambda v: -2 * torch.expm1(-0.5 * v),
            0.0,
        ),
        "squared_hellinger": Divergence(
            lambda u: (u.sqrt() - 1).square(), lambda t: t / (1 - t), lambda v: -torch.expm1(-v), torch.expm1, 0.0
        ),
        "jeffrey": Divergence(lambda u: (u - 1) * u.log(), _jeffrey_conjugate, lambda v: v, _jeffrey_conjugate, 0.0),
        "jensen_shannon": Divergence(
            lambda u: u * u.log() - (u + 1) * ((1 + u) / 2).log(),
            lambda t: -(2 - t.exp()).log(),
            lambda v: _LOG_2 + F.logsigmoid(v),
            lambda v: F.softplus(v) - _LOG_2,
            0.0,
        ),
        "weighted_jensen_shannon": Divergence(
            lambda u: pi * u * u.log() - (1 - pi + pi * u) * (1 - pi + pi * u).log(),
            lambda t: (1 - pi) * ((1 - pi) / (1 - pi * (t / pi).exp())).log(),
            lambda v: -pi * math.log(pi) + F.logsigmoid(v),
            lambda v: (1 - pi) * (math.log(1 - pi) - _log_1_minus_exp(F.logsigmoid(v) / pi)),
            0.0,
        ),
        "gan": Divergence(
            lambda u: u * u.log() - (u + 1) * (u + 1).log(),
            lambda t: -_log_1_minus_exp(t),
            F.logsigmoid,
            F.softplus,
            -_LOG_2,
        ),
    }
