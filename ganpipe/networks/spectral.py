"""Spectral normalisation: weights divided by their largest singular value (Miyato 2018, arXiv 1802.05957).

Legend: R rows (outputs) and C columns (inputs times the kernel's positions) of a weight as a matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

_NUM_FIRST_ITERATIONS = 20
"""Power iterations on the first weights, after which sigma is right within about a percent."""


class SpectralNorm(nn.Module):
    """A parametrization: W -> W / sigma(W), with sigma(W) = u^T W v (eq. 8 and algorithm 1).

    u and v approximate the first singular vectors. They are buffers, which `iterate` improves once per update of the
    weight; `forward` leaves them as they are, so that every micro-batch and every worker sees the same weight.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        num_rows, num_columns = weight.flatten(1).shape
        self.register_buffer("u", F.normalize(weight.new_empty(num_rows).normal_(), dim=0))
        self.register_buffer("v", weight.new_empty(num_columns))
        for _ in range(_NUM_FIRST_ITERATIONS):
            self.iterate(weight)

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """One power iteration (algorithm 1, lines 1 and 2)."""
        matrix_RC = weight.flatten(1)
        self.v.copy_(F.normalize(matrix_RC.T @ self.u, dim=0))
        self.u.copy_(F.normalize(matrix_RC @ self.v, dim=0))

    def sigma(self, weight: Tensor) -> Tensor:
        """u^T W v, a scalar; its gradient with respect to W is u v^T."""
        # In bf16 sigma would have two digits. An average over updates of unit vectors (EMA) is shorter than 1.
        with torch.autocast(weight.device.type, enabled=False):
            lengths = torch.linalg.vector_norm(self.u) * torch.linalg.vector_norm(self.v)
            return torch.dot(self.u, torch.mv(weight.flatten(1), self.v)) / lengths

    def forward(self, weight: Tensor) -> Tensor:
        return weight / self.sigma(weight)


def normalise(network: nn.Module, kinds: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.Linear)) -> None:
    """Put spectral normalisation on the weight of every layer of these kinds within `network`, in place.

    Only after the weights have their first values: what initialises `weight` later changes nothing.
    """
    for module in list(network.modules()):
        if isinstance(module, kinds):
            weight = module.weight
            assert isinstance(weight, nn.Parameter)
            # unsafe: without a trial of the forward pass, which networks without weights (on `meta`) cannot make.
            parametrize.register_parametrization(module, "weight", SpectralNorm(weight.detach()), unsafe=True)


def iterate(network: nn.Module) -> None:
    """One power iteration for every normalised weight within `network`; for `Phase.after_update` of its player."""
    for module in network.modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], SpectralNorm):
            assert isinstance(module.original, Tensor)
            module[0].iterate(module.original)
