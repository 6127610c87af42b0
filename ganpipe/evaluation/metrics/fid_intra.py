"""FID within each class, averaged over the classes (Miyato & Koyama 2018, arXiv 1802.05637)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .base import Metric

if TYPE_CHECKING:
    from ..measured import Measured


class FidIntra(Metric):
    """The mean over the classes that have enough images; None where no class has enough."""

    better = "lower"
    needs = frozenset({"features", "labels"})
    tells = "FID within each class, averaged over the classes"

    def compute(self, measured: Measured) -> float | None:
        found = [one.fid for one in measured.class_fids if one.is_measured]
        return float(np.mean(found)) if found else None
