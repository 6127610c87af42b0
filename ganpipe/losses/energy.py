"""What energy-based GANs minimise (Zhao 2016, arXiv 1609.03126). A high energy means "not real".

Legend: N samples, D units of a code. Results are computed in float32 or wider.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .adversarial import wide


def reconstruction_energy(images: Tensor, reconstructions: Tensor) -> Tensor:
    """D(x) of equation 3 as a mean: each sample's mean squared error, (N,). Tensors of one shape, samples first."""
    return (wide(images) - wide(reconstructions)).square().flatten(1).mean(1)


def margin_discriminator(real_energies: Tensor, fake_energies: Tensor, margin: float) -> Tensor:
    """E[D(x)] + E[max(0, m - D(G(z)))] (equation 1): beyond the margin m a generated image counts no more."""
    return wide(real_energies).mean() + F.relu(margin - wide(fake_energies)).mean()


def energy_generator(fake_energies: Tensor) -> Tensor:
    """E[D(G(z))] (equation 2)."""
    return wide(fake_energies).mean()


def pulling_away(codes_ND: Tensor) -> Tensor:
    """f_PT: the mean squared cosine between codes of different samples (equation 4); 0 for a single sample."""
    num = len(codes_ND)
    unit_ND = F.normalize(wide(codes_ND), dim=1)
    with torch.autocast(codes_ND.device.type, enabled=False):  # it would multiply in bf16
        cosines_NN = unit_ND @ unit_ND.T
    others = cosines_NN.square().sum() - cosines_NN.diagonal().square().sum()
    return others / max(1, num * (num - 1))
