"""A small classifier of features, which finds the class of an image; no generator is trained against it.

Legend: N, M images, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SHRINKAGE = 0.1
"""Share of the covariance that is replaced by its mean variance in all directions, so that the covariance can be
inverted even where there are fewer images than features."""
_HELD_OUT = 5
"""One image in five is held out."""


@dataclass(frozen=True)
class LinearDiscriminant:
    """Linear discriminant analysis: Gaussian classes that share one covariance (Hastie, Tibshirani & Friedman, "The
    Elements of Statistical Learning", section 4.3), shrunk towards a multiple of the identity.

    A closed form, without a random start: equal features give an equal classifier.

    Attributes:
        classes_K: numbers of the classes that it knows.
        weights_DK, biases_K: an image has the class with the largest features @ weights + bias.
    """

    classes_K: np.ndarray
    weights_DK: np.ndarray
    biases_K: np.ndarray

    @classmethod
    def fit(cls, features_ND: np.ndarray, labels_N: np.ndarray) -> LinearDiscriminant:
        """Fitted to at least one image."""
        features = np.asarray(features_ND, np.float64)
        classes_K, positions_N, counts_K = np.unique(labels_N, return_inverse=True, return_counts=True)
        means_KD = np.stack([features[positions_N == position].mean(0) for position in range(len(classes_K))])
        centred_ND = features - means_KD[positions_N]
        covariance_DD = (1 - _SHRINKAGE) / len(features) * (centred_ND.T @ centred_ND)
        variance = float(np.square(centred_ND).mean()) or 1.0  # 1 where all images of each class are equal
        covariance_DD[np.diag_indices_from(covariance_DD)] += _SHRINKAGE * variance
        weights_DK = np.linalg.solve(covariance_DD, means_KD.T)
        biases_K = np.log(counts_K / len(features)) - 0.5 * (means_KD * weights_DK.T).sum(1)
        return cls(classes_K, weights_DK, biases_K)

    def classes_of(self, features_MD: np.ndarray) -> np.ndarray:
        """The class that it finds for each image, (M,)."""
        scores_MK = np.asarray(features_MD, np.float64) @ self.weights_DK + self.biases_K
        found: np.ndarray = self.classes_K[scores_MK.argmax(1)]
        return found

    def accuracy(self, features_MD: np.ndarray, labels_M: np.ndarray) -> float:
        """The share of images whose class it finds, in [0, 1]."""
        return float((self.classes_of(features_MD) == labels_M).mean())


def fit_and_test(features_ND: np.ndarray, labels_N: np.ndarray) -> tuple[LinearDiscriminant, float]:
    """A classifier, and its accuracy on every fifth image, which it has not seen.

    Args:
        features_ND: of at least 2 images in random order.
    """
    is_held_out_N = np.arange(len(features_ND)) % _HELD_OUT == 0
    classifier = LinearDiscriminant.fit(features_ND[~is_held_out_N], labels_N[~is_held_out_N])
    return classifier, classifier.accuracy(features_ND[is_held_out_N], labels_N[is_held_out_N])
