"""Pictures of samples. Equal images give equal bytes: a PNG of pixels only, without date, software or title.

Legend: N images, K neighbours, C channels (1 or 3), H height, W width.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..gans.base import Gan, Progress
from .sampling import interpolate, sample_images, sample_seeds

_GAP, _BACKGROUND = 2, 255
_SHOWN_SIDE = 64
"""Smaller images are enlarged by a whole factor to about this side, pixel by pixel."""


def grid(images_NCHW: np.ndarray, columns: int | None = None, wide_gap_after: int | None = None) -> Image.Image:
    """uint8 images in rows, the first at the top left; as many columns as rows where `columns` is left out.

    Args:
        wide_gap_after: set the first so many columns apart from the others.
    """
    num_images, channels, height, width = images_NCHW.shape
    columns = columns or math.ceil(math.sqrt(num_images))
    rows = math.ceil(num_images / columns)
    factor = max(1, round(_SHOWN_SIDE / max(height, width)))
    enlarged = images_NCHW.repeat(factor, axis=2).repeat(factor, axis=3)
    height, width = height * factor, width * factor
    apart = 4 * _GAP if wide_gap_after else 0
    shape = (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP + apart, channels)
    canvas = np.full(shape, _BACKGROUND, np.uint8)
    for index, image_CHW in enumerate(enlarged):
        row, column = divmod(index, columns)
        top = _GAP + row * (height + _GAP)
        left = _GAP + column * (width + _GAP) + (apart if wide_gap_after and column >= wide_gap_after else 0)
        canvas[top : top + height, left : left + width] = image_CHW.transpose(1, 2, 0)
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)


def png(image: Image.Image) -> bytes:
    """The image as a file's content."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()


def nearest_figure(samples_NCHW: np.ndarray, neighbours_NKCHW: np.ndarray) -> Image.Image:
    """A row a sample: the sample, a gap, and the training images nearest to it, nearest first."""
    rows = np.concatenate([samples_NCHW[:, None], neighbours_NKCHW], axis=1)
    num_rows, columns, *shape = rows.shape
    return grid(rows.reshape(num_rows * columns, *shape), columns, wide_gap_after=1)


def grid_labels(gan: Gan, num_samples: int) -> list[int] | None:
    """Labels of a grid's samples: the classes in turn; None for a GAN without labels."""
    return [index % gan.data.num_classes for index in range(num_samples)] if "label" in gan.fields else None


def sample_grid(gan: Gan, progress: Progress, num_samples: int = 64, seed: int = 0) -> Image.Image:
    """Samples in a square; for a GAN with labels (at most 32 of them) a column a class."""
    labels = grid_labels(gan, num_samples)
    columns = gan.data.num_classes if labels is not None and gan.data.num_classes <= 32 else None
    return grid(sample_images(gan, progress, sample_seeds(seed, num_samples), labels), columns)


def interpolation_figure(gan: Gan, progress: Progress, num_rows: int, num_steps: int, seed: int = 0) -> Image.Image:
    """A row for each pair of successive seeds: from the latent of the one to that of the other."""
    seeds = sample_seeds(seed, num_rows + 1)
    labels = grid_labels(gan, num_rows)
    rows = [
        interpolate(gan, progress, seeds[row], seeds[row + 1], num_steps, None if labels is None else labels[row])
        for row in range(num_rows)
    ]
    return grid(np.concatenate(rows), num_steps)


@dataclass(frozen=True)
class SampleGrid:
    """Draws the grid of the same latents again and again while a GAN trains; picklable."""

    num_samples: int = 64
    seed: int = 0

    def __call__(self, gan: Gan, progress: Progress) -> bytes:
        """The grid as a PNG file's content."""
        return png(sample_grid(gan, progress, self.num_samples, self.seed))
