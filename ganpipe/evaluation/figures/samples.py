"""The first samples as a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from ...gans.base import Gan
from ..sample_grids import sample_grid
from .base import StillFigure

if TYPE_CHECKING:
    from ..measured import Measured, Subject


class Samples(StillFigure):
    """For every GAN; it also stands on the model card."""

    title = "Samples"
    tells = "Generated images, none picked by hand"

    @classmethod
    def applies(cls, gan: Gan) -> bool:
        return True

    def draw(self, subject: Subject, measured: Measured) -> Image.Image:
        settings = subject.settings
        return sample_grid(subject.gan, subject.progress, settings.num_grid_samples, settings.seed, subject.dataset)
