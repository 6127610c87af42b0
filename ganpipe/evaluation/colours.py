"""Which colours an image has, for a classifier: features of a network for objects hardly tell a skin tone.

Legend: N, M images, D features, B cells of the colour cube, H height, W width.
"""

from __future__ import annotations

import numpy as np

_CELLS = 6
"""Along each side of the colour cube, so that B = 216."""
_WEIGHT = 3.0
"""How much more colours deviate than features. On emoji in six skin tones, of which features alone tell 67 %, the
classifier is right on 98.8 % of the images that it has not seen (0.3: 97.1 %, 1: 97.7 %)."""


def colour_shares(images_N3HW: np.ndarray) -> np.ndarray:
    """The square root of the share of pixels in each cell of the colour cube, (N, B), float32.

    With the root, the Euclidean distance of two images is the Hellinger distance of their colours: few pixels of a
    colour count, too.

    Args:
        images_N3HW: uint8, RGB.
    """
    cells_N3HW = (images_N3HW.astype(np.int32) * _CELLS) >> 8
    numbers_NHW = (cells_N3HW[:, 0] * _CELLS + cells_N3HW[:, 1]) * _CELLS + cells_N3HW[:, 2]
    counts_NB = np.stack([np.bincount(numbers.ravel(), minlength=_CELLS**3) for numbers in numbers_NHW])
    shares: np.ndarray = np.sqrt(counts_NB / numbers_NHW[0].size).astype(np.float32)
    return shares


def with_colours(
    features: tuple[np.ndarray, np.ndarray], colours: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Features and colours of images as one vector each: of real ones (N, D + B), and of samples (M, D + B).

    Args:
        features: (N, D) and (M, D).
        colours: (N, B) and (M, B).
    """
    scale = _WEIGHT * _deviation(features[0]) / (_deviation(colours[0]) or 1.0)
    real, samples = (np.concatenate([each, scale * of], axis=1) for each, of in zip(features, colours, strict=True))
    return real, samples


def _deviation(rows: np.ndarray) -> float:
    """The root of the variance, summed over all columns."""
    return float(np.sqrt(rows.astype(np.float64).var(0).sum()))
