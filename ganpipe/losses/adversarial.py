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


def minimax_generator(fake_logits: Tensor) -> Tensor:
    """E[log(1 - D(G(z)))]: the generator's side of Goodfellow 2014, eq. 1."""
    return -F.softplus(wide(fake_logits)).mean()


def wasserstein_critic(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E[D(G(z))] - E[D(x)] (Arjovsky 2017, arXiv 1701.07875, eq. 2, negated to be minimised)."""
    return wide(fake_scores).mean() - wide(real_scores).mean()


def wasserstein_generator(fake_scores: Tensor) -> Tensor:
    """-E[D(G(z))] (Arjovsky 2017, algorithm 1)."""
    return -wide(fake_scores).mean()


def least_squares_discriminator(
    real_scores: Tensor, fake_scores: Tensor, real_target: float = 1.0, fake_target: float = 0.0
) -> Tensor:
    """E[(D(x) - b)^2] + E[(D(G(z)) - a)^2] (Mao 2016, arXiv 1611.04076, eq. 2 without its halves).

    Args:
        real_target: b.
        fake_target: a.
    """
    return (wide(real_scores) - real_target).square().mean() + (wide(fake_scores) - fake_target).square().mean()


def least_squares_generator(fake_scores: Tensor, target: float = 1.0) -> Tensor:
    """E[(D(G(z)) - c)^2] (Mao 2016, eq. 2 without its half), where `target` is c."""
    return (wide(fake_scores) - target).square().mean()


def boundary_seeking(fake_logits: Tensor) -> Tensor:
    """E[(log D(G(z)) - log(1 - D(G(z))))^2] / 2 (Hjelm 2017, arXiv 1702.08431, continuous data): zero where D = 1/2."""
    return 0.5 * wide(fake_logits).square().mean()


def importance_weighted(fake_logits_NM: Tensor, log_probabilities_NM: Tensor) -> Tensor:
    """-E_z[sum_m w_m log g(x_m | z)] with w_m = D/(1 - D) of x_m over its sum (Hjelm 2017, discrete data).

    Args:
        fake_logits_NM: of M samples for each latent; no gradient flows through them.
        log_probabilities_NM: of these samples under the generator.
    """
    weights_NM = wide(fake_logits_NM).detach().softmax(1)
    return -(weights_NM * wide(log_probabilities_NM)).sum(1).mean()


def margin_ranking(higher_scores: Tensor, lower_scores: Tensor, margin: float) -> Tensor:
    """E[max(0, lower + margin - higher)]: scores in pairs (Juefei-Xu 2017, arXiv 1704.04865, section 3)."""
    return F.relu(wide(lower_scores) + margin - wide(higher_scores)).mean()


def relativistic_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E[softplus(D(G(z)) - D(x))], in pairs (Jolicoeur-Martineau 2018, arXiv 1807.00734; Huang 2024, arXiv 2501.05441,
    eq. 2)."""
    return F.softplus(wide(fake_logits) - wide(real_logits)).mean()


def hinge_discriminator(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (Lim & Ye 2017, arXiv 1705.02894; Miyato 2018, arXiv 1802.05957,
    eq. 16): no gradient from images that are already a margin of 1 on their side."""
    return F.relu(1 - wide(real_scores)).mean() + F.relu(1 + wide(fake_scores)).mean()


def hinge_generator(fake_scores: Tensor) -> Tensor:
    """-E[D(G(z))] (Miyato 2018, eq. 17)."""
    return -wide(fake_scores).mean()


def matching_aware_discriminator(real_logits: Tensor, mismatched_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E[log D(x, t)] - (E[log(1 - D(x, t'))] + E[log(1 - D(G(z, t), t))]) / 2 (Reed 2016, arXiv 1605.05396, algorithm
    1): a real image with the words t' of another image is as false as a generated image."""
    false = F.softplus(wide(mismatched_logits)).mean() + F.softplus(wide(fake_logits)).mean()
    return F.softplus(-wide(real_logits)).mean() + false / 2
