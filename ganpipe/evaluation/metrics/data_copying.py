"""The data-copying test (Meehan 2020, arXiv 2004.05675).

Legend: T training images, H held-out images, M samples, D features, P principal components, K cells.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.stats import rankdata

from ..needs import is_given_pictures
from ..neighbours import nearest
from .base import Estimate, Metric

if TYPE_CHECKING:
    from ...gans.base import Gan, GanConfig
    from ...gans.spec import DataSpec
    from ..measured import Measured

_NUM_COMPONENTS = 64
"""Of the features: in more dimensions all distances are alike."""
_MOST_CELLS = 10
_PER_CELL = 100
"""Held-out images per cell, on average."""
_LEAST = 20
"""Held-out images, and samples, that a cell needs in order to count."""


class DataCopying(Metric):
    """C_T of the paper, in feature space: about 0 where samples are as near to training images as held-out images are,
    below -3 where they are nearer than chance explains, above where they are farther: whatever is far from all real
    images is no copy. None without enough held-out images. Not for GANs that are given a picture, of which a good
    result is a likeness."""

    better = "higher"
    needs = frozenset({"features"})
    tells = "Data-copying test: about 0 as for unseen real images, below -3 for copies of training images"

    @classmethod
    def applies(cls, gan: type[Gan] | Gan, config: GanConfig, data: DataSpec) -> bool:
        return super().applies(gan, config, data) and not is_given_pictures(gan, config, data)

    def compute(self, measured: Measured) -> Estimate | None:
        if measured.training_TD is None or measured.held_out_HD is None:
            return None
        return data_copying(measured.training_TD, measured.held_out_HD, measured.features_MD, measured.settings.seed)


def data_copying(
    training_TD: np.ndarray, held_out_HD: np.ndarray, samples_MD: np.ndarray, seed: int
) -> Estimate | None:
    """C_T; None where no cell has enough images.

    Args:
        samples_MD: the first H of them count.
        seed: of the k-means that divides feature space into cells.
    """
    mean_D, components_DP = _components(training_TD)
    training_TP, held_out_HP, samples_MP = (
        (each - mean_D) @ components_DP for each in (training_TD, held_out_HD, samples_MD[: len(held_out_HD)])
    )
    num_cells = max(1, min(_MOST_CELLS, len(held_out_HD) // _PER_CELL))
    start_KP = training_TP[np.random.default_rng(seed).permutation(len(training_TP))[:num_cells]]
    centres_KP, cells_T = kmeans2(training_TP, start_KP, minit="matrix")
    cells_H, cells_M = (nearest(each, centres_KP, 1)[0][:, 0] for each in (held_out_HP, samples_MP))
    scores, weights = [], []
    for cell in range(len(centres_KP)):
        training, held_out = training_TP[cells_T == cell], held_out_HP[cells_H == cell]
        samples = samples_MP[cells_M == cell]
        if min(len(held_out), len(samples)) >= _LEAST and len(training):
            distances = [nearest(each, training, 1)[1][:, 0] for each in (samples, held_out)]
            scores.append(_z_score(*distances))
            weights.append(len(held_out))
    if not scores:
        return None
    shares = np.array(weights) / sum(weights)
    return Estimate(float(shares @ scores), float(np.linalg.norm(shares)))  # each score has the standard deviation 1


def _components(features_TD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and principal components (D, P) of features."""
    mean_D = features_TD.mean(0, dtype=np.float64)
    centred_TD = features_TD - mean_D
    _, vectors_DD = np.linalg.eigh(centred_TD.T @ centred_TD)  # in ascending order
    return mean_D, vectors_DD[:, -_NUM_COMPONENTS:]


def _z_score(first_M: np.ndarray, second_H: np.ndarray) -> float:
    """How often the first are larger than the second: the Mann-Whitney U statistic, standardised."""
    num, others = len(first_M), len(second_H)
    larger = rankdata(np.concatenate([first_M, second_H]))[:num].sum() - num * (num + 1) / 2
    return float((larger - num * others / 2) / math.sqrt(num * others * (num + others + 1) / 12))
