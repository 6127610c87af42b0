"""How often the classifier of `class_accuracy` is right on real images that it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Metric

if TYPE_CHECKING:
    from ..measured import Measured


class ClassAccuracyOfReal(Metric):
    """It says nothing about the generator: `class_accuracy` has to be compared with it."""

    better = "higher"
    needs = frozenset({"features", "labels"})
    tells = "Share of held-out real images whose class the same classifier finds: what class_accuracy compares with"

    def compute(self, measured: Measured) -> float | None:
        accuracies = measured.class_accuracies
        return None if accuracies is None else accuracies[1]
