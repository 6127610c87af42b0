"""Improved precision (Kynkäänniemi 2019, arXiv 1904.06991)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..neighbours import share_on_manifold
from .base import Estimate, Metric, share_of

if TYPE_CHECKING:
    from ..measured import Measured


class Precision(Metric):
    """Of equally many samples and real images: the larger set is cut to the size of the smaller one."""

    better = "higher"
    needs = frozenset({"features"})
    tells = "Share of generated images that lie among real ones: fidelity"

    def compute(self, measured: Measured) -> Estimate:
        real_ND, num_neighbours = measured.real.features_ND, measured.settings.num_neighbours
        found = share_on_manifold(measured.features_MD, real_ND, num_neighbours, real_ND)
        return share_of(found, min(len(measured.features_MD), len(real_ND)))
