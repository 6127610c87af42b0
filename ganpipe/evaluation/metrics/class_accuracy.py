"""How often a classifier of real images finds the class that a sample was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Estimate, Metric, share_of

if TYPE_CHECKING:
    from ..measured import Measured


class ClassAccuracy(Metric):
    """The accuracy of `classifier.LinearDiscriminant`, fitted to features of real images, and of RGB images to their
    colours, too. `class_accuracy_of_real` says how far to trust it: the same classifier's accuracy on real images that
    it has not seen."""

    better = "higher"
    needs = frozenset({"features", "labels"})
    tells = "Share of generated images in which a classifier of real images finds the class that they were given"
    beside = ("real images", "class_accuracy_of_real")

    def compute(self, measured: Measured) -> Estimate | None:
        accuracies = measured.class_accuracies
        return None if accuracies is None else share_of(accuracies[0], len(measured.features_MD))
