"""Images between two latents.

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...gans.base import Gan
from ..grids import grid
from ..sample_grids import classes_in_turn
from ..sampling import interpolate, sample_seeds
from .base import StillFigure

if TYPE_CHECKING:
    from ..measured import Measured, Subject


class Interpolation(StillFigure):
    """A row for each pair of successive seeds: from the latent of the first to that of the second."""

    title = "Interpolation"
    tells = "Each row goes from one latent to another in equal steps"

    @classmethod
    def applies(cls, gan: Gan) -> bool:
        """Only with latents, where nothing but labels is given, and images are made."""
        return gan.has_latents and classes_in_turn(gan, 1) is not None and gan.output.kind == "image"

    def draw(self, subject: Subject, measured: Measured) -> Image.Image:
        settings = subject.settings
        num_rows, num_steps = settings.num_interpolations, settings.num_interpolation_steps
        given = classes_in_turn(subject.gan, num_rows) or {}
        seeds = sample_seeds(settings.seed, num_rows + 1)
        rows = []
        for row in range(num_rows):
            condition = {name: values[row : row + 1] for name, values in given.items()}
            rows.append(interpolate(subject.gan, subject.progress, (seeds[row], seeds[row + 1]), num_steps, condition))
        return grid(np.concatenate(rows), num_steps)
