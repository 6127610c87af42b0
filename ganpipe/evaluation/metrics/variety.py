"""How far images of the same condition lie apart, after the diversity score of Zhu 2017b (arXiv 1711.11586, section 4).

Legend: V samples that were made again, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Estimate, Metric, mean_of
from .feature_distance import feature_distances

if TYPE_CHECKING:
    from ..measured import Measured


class Variety(Metric):
    """The distance is that of `feature_distances`. High values of a bad generator are noise: read it beside `fid`."""

    better = "higher"
    needs = frozenset({"features", "variety"})
    tells = "Distance between features of two images that are made of the same condition from different latents"

    def compute(self, measured: Measured) -> float | Estimate | None:
        assert measured.again_VD is not None
        return mean_of(feature_distances(measured.features_MD[: len(measured.again_VD)], measured.again_VD))
