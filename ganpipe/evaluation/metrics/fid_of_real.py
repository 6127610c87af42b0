"""The FID that a perfect generator would have: its floor.

Legend: N real images, M samples, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..frechet import fid
from .base import Metric

if TYPE_CHECKING:
    from ..measured import Measured

_LEAST = 4
"""Real images whose halves have a covariance."""


class FidOfReal(Metric):
    """It says nothing about the generator: `fid` has to be compared with it."""

    better = "lower"
    needs = frozenset({"features"})
    tells = "FID that other real images would have in place of the generated ones: the floor of fid"

    def compute(self, measured: Measured) -> float | None:
        return floor(measured.real.features_ND, len(measured.features_MD))


def floor(real_ND: np.ndarray, num_samples: int) -> float | None:
    """The FID of `num_samples` other real images against these ones, extrapolated from their two halves; None for too
    few images.

    The FID of two samples of one distribution is nothing but bias, in first order c (1/N + 1/M) (Chong & Forsyth 2020,
    arXiv 1911.07023, section 3). The halves give 4 c / N.

    Args:
        real_ND: in random order.
    """
    num_real = len(real_ND)
    if num_real < _LEAST:
        return None
    return fid(real_ND[: num_real // 2], real_ND[num_real // 2 :]) * (1 + num_real / num_samples) / 4
