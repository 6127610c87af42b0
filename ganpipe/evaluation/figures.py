"""Pictures of samples.

Legend: N images, K neighbours, C channels (1 or 3), H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..gans.base import Gan, Progress
from .grids import grid, png
from .sampling import interpolate, sample_images, sample_seeds


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
