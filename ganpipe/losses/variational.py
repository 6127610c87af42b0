"""What auto-encoding GANs minimise beside the adversarial game.

Legend: N samples, Z latent size. Results are scalars, computed in float32 or wider.
"""

from __future__ import annotations

from torch import Tensor

from .adversarial import wide


def standard_normal_divergence(mean_NZ: Tensor, log_variance_NZ: Tensor) -> Tensor:
    """E[KL(N(mean, variance) || N(0, I))] (Kingma & Welling 2013, arXiv 1312.6114, appendix B)."""
    mean_NZ, log_variance_NZ = wide(mean_NZ), wide(log_variance_NZ)
    return 0.5 * (mean_NZ.square() + log_variance_NZ.exp() - 1 - log_variance_NZ).sum(1).mean()


def unit_gaussian_likelihood(values: Tensor, means: Tensor) -> Tensor:
    """E[-log N(values | means, I)] up to a constant (Larsen 2015, arXiv 1512.09300, eq. 7 and 8), of tensors of one
    shape, samples first: half the squared distance."""
    return 0.5 * (wide(values) - wide(means)).square().flatten(1).sum(1).mean()


def log_ratio(fake_logits: Tensor) -> Tensor:
    """E[-log D + log(1 - D)] with D = sigmoid(logits): the log of a density ratio (Rosca 2017, arXiv 1706.04987,
    algorithm 1), which is the logit, negated."""
    return -wide(fake_logits).mean()
