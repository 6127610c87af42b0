"""FID within each class.

Legend: N, M images, D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .frechet import fid


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
    """The FID within each class, by class number.

    FIDs of different classes or numbers of images cannot be compared: FID's bias grows as images get fewer.
    """
    result = []
    for label in range(num_classes):
        real, generated = real_ND[real_labels_N == label], generated_MD[generated_labels_M == label]
        measured = min(len(real), len(generated)) >= 2
        result.append(ClassFid(fid(real, generated) if measured else math.nan, len(real), len(generated)))
    return result
