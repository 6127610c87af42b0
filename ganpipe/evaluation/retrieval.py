"""Finding the words that belong to an image, in closed form; no generator is trained against it.

Legend: N, M images, D features, P principal directions, L words of a text, V token numbers, K texts to choose from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..words import NUM_RESERVED

NUM_CHOICES = 100
"""K: the right text, and 99 others at random (Xu 2017, arXiv 1711.10485, section 4)."""
_MAX_DIRECTIONS = 128
_RIDGE = 0.3
"""Of the kernel ridge regression, as a share of the kernel's mean diagonal."""


def bags_of_words(tokens_NL: np.ndarray, num_words: int) -> np.ndarray:
    """1 where a text has a word, (N, V); padding and unknown words are left out."""
    bags_NV = np.zeros((len(tokens_NL), num_words))
    bags_NV[np.arange(len(tokens_NL))[:, None], tokens_NL] = 1
    bags_NV[:, :NUM_RESERVED] = 0
    return bags_NV


@dataclass(frozen=True)
class WordFinder:
    """Predicts features of images from their words by kernel ridge regression, and compares by cosine.

    Attributes:
        mean_D, directions_DP: features - mean @ directions are uncorrelated, of variance 1.
        weights_V: how rare a word is (the logarithm of the inverse share of texts that have it).
        texts_NV: the weighted words of the images to which it was fitted, of unit length.
        coefficients_NP: of the regression.
    """

    mean_D: np.ndarray
    directions_DP: np.ndarray
    weights_V: np.ndarray
    texts_NV: np.ndarray
    coefficients_NP: np.ndarray

    @classmethod
    def fit(cls, features_ND: np.ndarray, bags_NV: np.ndarray) -> WordFinder:
        """Fitted to at least two images and their words."""
        features = np.asarray(features_ND, np.float64)
        mean_D = features.mean(0)
        _, deviations_R, directions_RD = np.linalg.svd(features - mean_D, full_matrices=False)
        is_used = deviations_R > 1e-6 * max(deviations_R[0], 1e-12)
        num = min(_MAX_DIRECTIONS, int(is_used.sum()))
        scale_P = np.sqrt(len(features)) / np.maximum(deviations_R[:num], 1e-12)
        directions_DP = directions_RD[:num].T * scale_P
        counts_V = bags_NV.sum(0)
        weights_V = np.where(counts_V > 0, np.log((1 + len(bags_NV)) / (1 + counts_V)) + 1, 0.0)
        texts_NV = _unit(bags_NV * weights_V)
        kernel_NN = texts_NV @ texts_NV.T
        kernel_NN[np.diag_indices_from(kernel_NN)] += _RIDGE
        coefficients_NP = np.linalg.solve(kernel_NN, (features - mean_D) @ directions_DP)
        return cls(mean_D, directions_DP, weights_V, texts_NV, coefficients_NP)

    def precision(self, features_MD: np.ndarray, bags_MV: np.ndarray, seed: int) -> float:
        """The share of images whose own text is found among `NUM_CHOICES` (or all, if there are fewer), in [0, 1].

        Args:
            seed: of the other texts, which are those of other images and differ from the right one.
        """
        images_MP = _unit((np.asarray(features_MD, np.float64) - self.mean_D) @ self.directions_DP)
        texts_MP = _unit(_unit(bags_MV * self.weights_V) @ self.texts_NV.T @ self.coefficients_NP)
        random, found = np.random.default_rng(seed), 0
        for number in range(len(images_MP)):
            others = np.flatnonzero((bags_MV != bags_MV[number]).any(1))
            chosen = random.permutation(others)[: NUM_CHOICES - 1]
            scores = texts_MP[chosen] @ images_MP[number]
            found += bool(texts_MP[number] @ images_MP[number] > scores.max(initial=-np.inf))
        return found / len(images_MP)


def precisions(
    real_ND: np.ndarray, samples_MD: np.ndarray, tokens_ML: np.ndarray, num_words: int, seed: int
) -> tuple[float, float] | None:
    """R-precision of samples, and of real images, both of words that the finder was not fitted to; None for fewer than
    4 images.

    Args:
        real_ND: features of real images; the i-th of them has the words of sample i.
        tokens_ML: what the samples were given.
    """
    num = min(len(real_ND), len(samples_MD))
    if num < 4:
        return None
    bags_NV, half = bags_of_words(tokens_ML[:num], num_words), num // 2
    finder = WordFinder.fit(real_ND[:half], bags_NV[:half])
    return tuple(finder.precision(each[half:num], bags_NV[half:], seed) for each in (samples_MD, real_ND))  # type: ignore[return-value]


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: np.ndarray = rows / np.maximum(lengths, 1e-12)
    return scaled
