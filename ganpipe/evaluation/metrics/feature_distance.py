"""Distance of paired images in the extractor's feature space, after the idea of LPIPS (Zhang 2018, arXiv 1801.03924).

Legend: N, M images, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .base import Estimate, Metric, mean_of

if TYPE_CHECKING:
    from ..measured import Measured


class FeatureDistance(Metric):
    """Like LPIPS, it compares features of unit length. It is not LPIPS: it sees only the features of the extractor's
    last layer, averaged over positions, and no weights were fitted to what people find alike."""

    better = "lower"
    needs = frozenset({"features", "pairs"})
    tells = "Distance between features of each generated image and of the image that it should be, 0 for equal features"
    beside = ("before", "feature_distance_of_given")

    def compute(self, measured: Measured) -> float | Estimate | None:
        return mean_of(distances_from_real(measured.features_MD, measured))


def distances_from_real(features_MD: np.ndarray, measured: Measured) -> np.ndarray:
    """`feature_distances` of images from those that they should be, (M,)."""
    # Sample i is paired with the reference's image i; after the last image the first one follows again.
    positions_M = np.arange(len(features_MD)) % len(measured.real.features_ND)
    return feature_distances(features_MD, measured.real.features_ND[positions_M])


def feature_distances(first_ND: np.ndarray, second_ND: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of feature vectors that are scaled to unit length, for each pair, (N,)."""
    first_ND, second_ND = (_unit(np.asarray(features, np.float64)) for features in (first_ND, second_ND))
    found: np.ndarray = np.square(first_ND - second_ND).sum(1)
    return found


def _unit(features_ND: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(features_ND, axis=1, keepdims=True)
    scaled: np.ndarray = features_ND / np.maximum(lengths, np.finfo(np.float64).tiny)
    return scaled
