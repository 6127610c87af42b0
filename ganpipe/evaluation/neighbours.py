"""Distances between features, and nearest neighbours. Only some rows of a distance matrix are in memory at a time.

Legend: N, M images, S images that are compared, D features, K neighbours.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import GanpipeError

_CHUNK = 1024
"""Rows of a distance matrix that are in memory at once."""


def _squared_distances(rows_ND: Tensor, columns_MD: Tensor) -> Tensor:
    products = rows_ND @ columns_MD.T
    return rows_ND.square().sum(1)[:, None] + columns_MD.square().sum(1)[None] - 2 * products


def share_on_manifold(
    features_ND: np.ndarray, manifold_MD: np.ndarray, num_neighbours: int, real_ND: np.ndarray
) -> float:
    """The share of images that lie on the manifold of others (Kynkäänniemi 2019, arXiv 1904.06991, algorithm 1), in
    [0, 1]: within the distance between one of the others and its k-th nearest neighbour among them.

    The paper takes equally many images of each kind, and so does this: the first min(N, M).

    Args:
        real_ND: those of the two that are real; distances are computed around their mean.

    Raises:
        GanpipeError: not more images than neighbours.
    """
    size = min(len(features_ND), len(manifold_MD))
    if size <= num_neighbours:
        raise GanpipeError(f"precision and recall with {num_neighbours} neighbours need more images than {size}")
    # Distances do not change when the origin moves, and their rounding is smaller near it.
    origin_D = np.asarray(real_ND[:size], np.float64).mean(0)
    rows_SD, manifold_SD = (
        torch.from_numpy((features[:size] - origin_D).astype(np.float32)) for features in (features_ND, manifold_MD)
    )
    return _share_within(rows_SD, manifold_SD, _radii(manifold_SD, num_neighbours))


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
    # An image may lie exactly on a radius, and a radius is zero among equal images: rounding must not exclude it.
    slack = 1e-5 * float(manifold_MD.square().sum(1).mean())
    inside = 0
    for start in range(0, len(features_ND), _CHUNK):
        distances = _squared_distances(features_ND[start : start + _CHUNK], manifold_MD)
        inside += int((distances <= radii_M + slack).any(1).sum())
    return inside / len(features_ND)


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
