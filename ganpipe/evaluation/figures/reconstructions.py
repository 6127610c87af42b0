"""Real images, and what encoder and generator make of them (as in Larsen 2015, arXiv 1512.09300).

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...gans.base import Gan
from ..given import read_rows
from ..grids import grid
from ..sampling import quantise, reconstruct_images
from .base import StillFigure

if TYPE_CHECKING:
    from ..measured import Measured, Subject


class Reconstructions(StillFigure):
    """Pairs side by side: an image of the evaluation's split, and its reconstruction. The first images by number."""

    title = "Reconstructions"
    tells = "Left: real images; right of each, what encoder and generator make of it"

    @classmethod
    def applies(cls, gan: Gan) -> bool:
        return gan.reconstructs and gan.output.kind == "image"

    def draw(self, subject: Subject, measured: Measured) -> Image.Image:
        gan, num_cells = subject.gan, subject.settings.num_grid_samples
        num_pairs = max(1, num_cells // 2)
        rows = read_rows(subject.field_reader(gan.fields), 0, num_pairs)
        made = reconstruct_images(gan, subject.progress, rows)
        pairs = np.stack([quantise(rows[gan.fields[0]]), made], axis=1)
        return grid(pairs.reshape(-1, *made.shape[1:]), 2 * max(1, math.isqrt(num_cells) // 2), wide_gap_every=2)
