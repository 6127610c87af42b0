"""KID, precision and recall, FID of each class, nearest neighbours: functions of features.

Legend: N, M images, S images of a subset, D features, K neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import GanpipeError
from .frechet import Gaussian, gaussian_distance

_CHUNK = 1024
"""Rows of a distance matrix that are in memory at once."""


def fid(real_ND: np.ndarray, generated_MD: np.ndarray) -> float:
    """Fréchet distance of features (Heusel 2017, arXiv 1706.08500)."""
    return gaussian_distance(Gaussian.of(real_ND), Gaussian.of(generated_MD))


@dataclass(frozen=True)
class Kid:
    """Mean over subsets, which is unbiased and may be slightly negative, and its standard error."""

    mean: float
    standard_error: float


def kid(
    real_ND: np.ndarray, generated_MD: np.ndarray, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> Kid:
    """Kernel inception distance (Bińkowski 2018, arXiv 1801.01401, section 3): the squared maximum mean discrepancy
    under the kernel (x.y / D + 1)^3, unbiased, averaged over random subsets.

    Raises:
        GanpipeError: fewer than 2 images.
    """
    size = min(subset_size, len(real_ND), len(generated_MD))
    if size < 2:
        raise GanpipeError(
            f"KID needs 2 images of each kind, got {len(real_ND)} real and {len(generated_MD)} generated"
        )
    generator = np.random.default_rng(seed)
    real, generated = torch.from_numpy(np.asarray(real_ND)), torch.from_numpy(np.asarray(generated_MD))
    estimates = np.empty(num_subsets)
    for index in range(num_subsets):
        x_SD = real[torch.from_numpy(generator.choice(len(real), size, replace=False))]
        y_SD = generated[torch.from_numpy(generator.choice(len(generated), size, replace=False))]
        estimates[index] = _unbiased_mmd(x_SD, y_SD)
    error = float(estimates.std(ddof=1) / np.sqrt(num_subsets)) if num_subsets > 1 else float("nan")
    return Kid(float(estimates.mean()), error)


def _unbiased_mmd(x_SD: Tensor, y_SD: Tensor) -> float:
    """Equation 4 of the paper with samples of equal size."""
    size, num_features = x_SD.shape

    def kernel(a_SD: Tensor, b_SD: Tensor) -> Tensor:
        return (a_SD @ b_SD.T).double().div_(num_features).add_(1).pow_(3)

    xx, yy, xy = kernel(x_SD, x_SD), kernel(y_SD, y_SD), kernel(x_SD, y_SD)
    within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (size * (size - 1))
    return float(within - 2 * xy.mean())


@dataclass(frozen=True)
class PrecisionRecall:
    """Both in [0, 1]: which share of the generated images is realistic, and which share of the real ones is covered."""

    precision: float
    recall: float


def precision_recall(real_ND: np.ndarray, generated_MD: np.ndarray, num_neighbours: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi 2019, arXiv 1904.06991, algorithm 1).

    The paper takes equally many images of each kind, and so does this: the first min(N, M). Only some rows of a
    distance matrix are in memory at a time.

    Raises:
        GanpipeError: not more images than neighbours.
    """
    size = min(len(real_ND), len(generated_MD))
    if size <= num_neighbours:
        raise GanpipeError(f"precision and recall with {num_neighbours} neighbours need more images than {size}")
    # Distances do not change when the origin moves, and their rounding is smaller near it.
    origin_D = np.asarray(real_ND[:size], np.float64).mean(0)
    real_SD, generated_SD = (
        torch.from_numpy((features[:size] - origin_D).astype(np.float32)) for features in (real_ND, generated_MD)
    )
    return PrecisionRecall(
        precision=_share_within(generated_SD, real_SD, _radii(real_SD, num_neighbours)),
        recall=_share_within(real_SD, generated_SD, _radii(generated_SD, num_neighbours)),
    )


def _squared_distances(rows_ND: Tensor, columns_MD: Tensor) -> Tensor:
    products = rows_ND @ columns_MD.T
    return rows_ND.square().sum(1)[:, None] + columns_MD.square().sum(1)[None] - 2 * products


def _radii(features_ND: Tensor, num_neighbours: int) -> Tensor:
    """Squared distance of each image to its k-th neighbour, itself not counted, (N,)."""
    parts = []
    for start in range(0, len(features_ND), _CHUNK):
        rows = features_ND[start : start + _CHUNK]
        distances = _squared_distances(rows, features_ND)
        distances[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = torch.inf
        parts.append(distances.topk(num_neighbours, dim=1, largest=False).values[:, -1])
    return torch.cat(parts)


def _share_within(features_ND: Tensor, manifold_MD: Tensor, radii_M: Tensor) -> float:
    """The share of images within the radius of at least one of the manifold's images."""
    # Rounding must not put an image outside a radius that is its own distance (or zero, among equal images).
    slack = 1e-5 * float(manifold_MD.square().sum(1).mean())
    inside = 0
    for start in range(0, len(features_ND), _CHUNK):
        distances = _squared_distances(features_ND[start : start + _CHUNK], manifold_MD)
        inside += int((distances <= radii_M + slack).any(1).sum())
    return inside / len(features_ND)


@dataclass(frozen=True)
class ClassFid:
    """FID within one class; not a number where it has fewer than 2 real or 2 generated images."""

    fid: float
    num_real: int
    num_generated: int

    @property
    def is_measured(self) -> bool:
        return not math.isnan(self.fid)


def class_fids(
    real_ND: np.ndarray,
    real_labels_N: np.ndarray,
    generated_MD: np.ndarray,
    generated_labels_M: np.ndarray,
    num_classes: int,
) -> list[ClassFid]:
    """By class number.

    Numbers of different classes or sample sizes do not compare: FID's bias grows as samples get fewer.
    """
    result = []
    for label in range(num_classes):
        real, generated = real_ND[real_labels_N == label], generated_MD[generated_labels_M == label]
        measured = min(len(real), len(generated)) >= 2
        result.append(ClassFid(fid(real, generated) if measured else math.nan, len(real), len(generated)))
    return result


def nearest(queries_ND: np.ndarray, features_MD: np.ndarray, num_nearest: int) -> tuple[np.ndarray, np.ndarray]:
    """The `num_nearest` of the features that are nearest to each query, nearest first.

    Returns:
        Their indices (N, K), int64, and Euclidean distances (N, K), float32.

    Raises:
        GanpipeError: fewer features than asked for.
    """
    if num_nearest > len(features_MD):
        raise GanpipeError(f"cannot show {num_nearest} nearest of {len(features_MD)} real images")
    queries, features = torch.from_numpy(np.asarray(queries_ND)), torch.from_numpy(np.asarray(features_MD))
    found = []
    for start in range(0, len(queries), _CHUNK):
        distances = _squared_distances(queries[start : start + _CHUNK].double(), features.double()).clamp_(min=0)
        found.append(distances.sqrt_().topk(num_nearest, dim=1, largest=False))
    indices = torch.cat([part.indices for part in found]).numpy()
    return indices, torch.cat([part.values for part in found]).float().numpy()
