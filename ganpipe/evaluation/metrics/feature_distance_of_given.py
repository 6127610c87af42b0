"""Distance in the extractor's feature space of the images that a generator is given, before it does anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Estimate, Metric, mean_of
from .feature_distance import distances_from_real

if TYPE_CHECKING:
    from ..measured import Measured


class FeatureDistanceOfGiven(Metric):
    """It says nothing about the generator: `feature_distance` has to be compared with it."""

    better = "lower"
    needs = frozenset({"features", "pairs"})
    tells = (
        "Distance between features of each given image, resized (bicubic), and of the image that should be made of it: "
        "what feature_distance compares with"
    )

    def compute(self, measured: Measured) -> float | Estimate | None:
        assert measured.given_MD is not None
        return mean_of(distances_from_real(measured.given_MD, measured))
