"""The samples that are nearest to a training image, as copies would be, beside their nearest training images.

Legend: N samples, K neighbours, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...gans.base import Gan
from ..given import reference_for
from ..grids import grid
from ..neighbours import nearest
from ..reference import Reference, cached_reference
from .base import StillFigure

if TYPE_CHECKING:
    from ..measured import Measured, Subject


class Nearest(StillFigure):
    """A row per sample: the sample, a gap, and the training images nearest to it, nearest first."""

    title = "Nearest training images"
    tells = "Left: generated images; right of each, the training images nearest to it"

    @classmethod
    def applies(cls, gan: Gan) -> bool:
        return gan.output.kind == "image"

    def draw(self, subject: Subject, measured: Measured) -> Image.Image:
        settings, training = subject.settings, subject.training or subject.dataset
        real = _training_reference(subject)
        num_nearest = min(settings.num_nearest, len(real.features_ND))
        positions_NK, distances_NK = nearest(measured.features_MD, real.features_ND, num_nearest)
        suspects = np.argsort(distances_NK[:, 0], kind="stable")[: settings.num_nearest_samples]
        samples_NCHW = subject.images(suspects.tolist())
        indices_NK = real.indices_N[positions_NK[suspects]]
        main = subject.gan.data.main
        images = training.rows(indices_NK.reshape(-1), [main])[main]
        neighbours_NKCHW = images.reshape(*indices_NK.shape, *images.shape[1:])
        rows = np.concatenate([samples_NCHW[:, None], neighbours_NKCHW], axis=1)
        num_rows, columns, *shape = rows.shape
        return grid(rows.reshape(num_rows * columns, *shape), columns, wide_gap_after=1)


def _training_reference(subject: Subject) -> Reference:
    if subject.training is None or subject.training is subject.dataset:
        return subject.real
    return reference_for(subject.gan, cached_reference(subject.training, subject.extractor, subject.settings))
