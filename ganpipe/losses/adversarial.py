"""What generator and discriminator minimise against each other.

Legend: logits are what the discriminator puts out before any sigmoid, any shape with samples first. Results are
scalars, computed in float32 or wider whatever the networks compute in.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def wide(tensor: Tensor) -> Tensor:
    """`tensor` in float32 or wider: in bf16, means and differences would lose most of their digits."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def discriminator_cross_entropy(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E[log D(x)] - E[log(1 - D(G(z)))] (Goodfellow 2014, arXiv 1406.2661, eq. 1), with D = sigmoid(logits)."""
    return F.softplus(-wide(real_logits)).mean() + F.softplus(wide(fake_logits)).mean()


def non_saturating(fake_logits: Tensor) -> Tensor:
    """-E[log D(G(z))]: the generator's loss of Goodfellow 2014, section 3, whose gradient does not vanish early."""
    return F.softplus(-wide(fake_logits)).mean()


def wasserstein_critic(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E[D(G(z))] - E[D(x)] (Arjovsky 2017, arXiv 1701.07875, eq. 2, negated to be minimised)."""
    return wide(fake_scores).mean() - wide(real_scores).mean()


def wasserstein_generator(fake_scores: Tensor) -> Tensor:
    """-E[D(G(z))] (Arjovsky 2017, algorithm 1)."""
    return -wide(fake_scores).mean()


def least_squares_discriminator(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E[(D(x) - 1)^2] + E[D(G(z))^2] (Mao 2016, arXiv 1611.04076, eq. 9 without its halves: b = c = 1, a = 0)."""
    return (wide(real_scores) - 1).square().mean() + wide(fake_scores).square().mean()


def least_squares_generator(fake_scores: Tensor) -> Tensor:
    """E[(D(G(z)) - 1)^2] (Mao 2016, eq. 9 without its half)."""
    return (wide(fake_scores) - 1).square().mean()


def hinge_discriminator(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (Lim & Ye 2017, arXiv 1705.02894; Miyato 2018, arXiv 1802.05957,
    eq. 16): no gradient from images that are already a margin of 1 on their side."""
    return F.relu(1 - wide(real_scores)).mean() + F.relu(1 + wide(fake_scores)).mean()


def hinge_generator(fake_scores: Tensor) -> Tensor:
    """-E[D(G(z))] (Miyato 2018, eq. 17)."""
    return -wide(fake_scores).mean()
