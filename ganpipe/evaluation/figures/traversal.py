"""What each code of a GAN changes (as in Chen 2016, arXiv 1606.03657, figure 2).

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...fields import FieldSpec
from ...gans.base import Gan
from ..grids import ragged_grid
from ..sample_grids import MAX_COLUMNS
from ..sampling import conditions_of, sample_images
from .base import StillFigure

if TYPE_CHECKING:
    from ..measured import Measured, Subject


class Traversal(StillFigure):
    """A row per code: a code that is a class takes each of its values (at most 32), one that is a number goes from its
    lowest to its highest value. Along a row the latent, the other codes and what else is given stay the same."""

    title = "Traversal of the codes"
    tells = "Each row changes one code and nothing else"

    @classmethod
    def applies(cls, gan: Gan) -> bool:
        return bool(gan.codes(gan.config)) and gan.output.kind == "image"

    def draw(self, subject: Subject, measured: Measured) -> Image.Image:
        codes = subject.gan.codes(subject.gan.config)
        rows = [self._row(subject, number, name) for number, name in enumerate(codes)]
        return ragged_grid(rows)

    def _row(self, subject: Subject, number: int, code: str) -> np.ndarray:
        """The images of one code, (N, C, H, W), from the seed and the conditions of the sample `number`."""
        gan, sample = subject.gan, number % len(subject.seeds)
        seed = subject.seeds[sample]
        values_N = values_along(gan.conditions[code], subject.settings.num_interpolation_steps)
        fixed = conditions_of(gan, [seed], subject.conditions([sample]))
        given = {name: row.expand(len(values_N), *row.shape[1:]) for name, row in fixed.items()}
        return sample_images(gan, subject.progress, [seed] * len(values_N), {**given, code: values_N})


def values_along(spec: FieldSpec, num_steps: int) -> Tensor:
    """The values that a code takes along its row, (N,)."""
    if spec.kind == "number":
        return torch.linspace(spec.low, spec.high, num_steps)
    assert spec.kind == "label"
    return torch.arange(min(spec.num_classes, MAX_COLUMNS))
