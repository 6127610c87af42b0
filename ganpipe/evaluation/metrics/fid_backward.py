"""FID of what a GAN with two directions makes in its second one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .base import Estimate, Metric
from .fid import Fid

if TYPE_CHECKING:
    from ..measured import Measured


class FidBackward(Metric):
    """As `fid`, which measures the first direction."""

    better = "lower"
    needs = frozenset({"features", "directions"})
    tells = "FID in the second direction: images that are translated back to the first domain, against real ones of it"

    def compute(self, measured: Measured) -> Estimate:
        assert measured.backward is not None
        real, features_MD = measured.backward
        return Fid().compute(dataclasses.replace(measured, real=real, features_MD=features_MD))
