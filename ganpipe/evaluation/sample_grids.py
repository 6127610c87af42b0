"""Grids of samples: those of the evaluation, and those that are drawn again and again in a training.

Legend: N images, C channels (1 or 3), H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..data.loading.dataset import Dataset
from ..data.loading.opening import open_dataset
from ..data.shards.shard_set import ShardSet
from ..errors import GanpipeError
from ..fields import FieldSpec
from ..gans.base import Gan, Progress
from ..gans.spec import is_view
from .frames import side_by_side
from .given import field_reader, read_rows
from .grids import grid, png
from .reference import choose
from .sampling import quantise, sample_images, sample_seeds

MAX_COLUMNS = 32


def classes_in_turn(gan: Gan, num_samples: int) -> dict[str, np.ndarray] | None:
    """The classes in turn, for a grid of samples, where labels are all that the GAN is given; else None."""
    labels = {name: spec for name, spec in gan.conditions.items() if name in gan.given and spec.kind == "label"}
    if len(labels) < len(gan.given):
        return None
    return {name: np.arange(num_samples) % spec.num_classes for name, spec in labels.items()}


def num_columns(gan: Gan) -> int | None:
    """Columns of a grid whose samples have the classes in turn: one per class, for at most 32 of them."""
    classes = [spec.num_classes for name, spec in gan.conditions.items() if name in gan.given and spec.kind == "label"]
    return classes[0] if len(classes) == 1 and classes[0] <= MAX_COLUMNS else None


def sample_grid(
    gan: Gan, progress: Progress, num_samples: int = 64, seed: int = 0, dataset: Dataset | None = None
) -> Image.Image:
    """Samples in a square; for a GAN with labels (at most 32 of them) a column per class.

    For a GAN that is given pictures: each picture, what is made of it and, where the dataset has it, what it should be.
    The frames of a sequence stand from left to right.

    Args:
        dataset: where rows of what the GAN is given come from; not needed for labels alone.

    Raises:
        GanpipeError: a dataset is needed, and there is none.
    """
    if (given := classes_in_turn(gan, num_samples)) is not None:
        images = sample_images(gan, progress, sample_seeds(seed, num_samples), given)
        return grid(side_by_side(images), num_columns(gan))
    if dataset is None:
        raise GanpipeError(
            f"{type(gan).__name__} is given {', '.join(gan.given)}; a grid of its samples needs a dataset"
        )
    return _example_grid(gan, progress, num_samples, seed, dataset)


def _example_grid(gan: Gan, progress: Progress, num_pictures: int, seed: int, dataset: Dataset) -> Image.Image:
    origins = gan.origins(gan.config, gan.data)
    pictures = [name for name in gan.given if gan.conditions[name].is_picture]
    is_paired = not is_view(origins[gan.fields[0]]) and gan.fields[0] not in gan.given
    num_cells = sum(map(_num_frames, [*(gan.conditions[n] for n in pictures), *[gan.output] * (1 + is_paired)]))
    num_examples = max(1, num_pictures // num_cells)
    names = [*gan.given, *([gan.fields[0]] if is_paired else [])]
    rows = read_rows(field_reader(gan, dataset, choose(len(dataset), len(dataset), seed), seed, names), 0, num_examples)
    made = sample_images(gan, progress, sample_seeds(seed, num_examples), {name: rows[name] for name in gan.given})
    shown = [quantise(rows[name]) for name in pictures]
    true = [quantise(rows[gan.fields[0]])] if is_paired else []
    if any(images.ndim == 5 for images in [made, *shown]):
        return _grid_of_sequences(shown, made, true)
    alike = np.stack([resized_like(cell, made) for cell in [*shown, made, *true]], axis=1)
    per_row = max(1, math.isqrt(num_pictures) // num_cells)
    return grid(alike.reshape(-1, *made.shape[1:]), num_cells * per_row, wide_gap_every=num_cells)


def _num_frames(spec: FieldSpec) -> int:
    """Cells that a picture takes in a grid."""
    return spec.num_frames if spec.kind == "frames" else 1


def _grid_of_sequences(shown: Sequence[np.ndarray], made: np.ndarray, true: Sequence[np.ndarray]) -> Image.Image:
    """For each example a row of what is given and, behind a wide gap, what is made of it; and below, if it is known, a
    row with what should be made of it."""
    like_NCHW = as_frames(made)[:, 0]

    def sized(images: np.ndarray) -> np.ndarray:
        frames = as_frames(images)
        merged = resized_like(frames.reshape(-1, *frames.shape[2:]), like_NCHW)
        return merged.reshape(*frames.shape[:2], *merged.shape[1:])

    before = [sized(images) for images in shown]
    rows = [np.concatenate([*before, sized(ends)], axis=1) for ends in (made, *true)]
    examples = np.stack(rows, axis=1)  # (N, rows of an example, frames of a row, C, H, W)
    return grid(
        examples.reshape(-1, *examples.shape[3:]), examples.shape[2], wide_gap_after=sum(one.shape[1] for one in before)
    )


def as_frames(images: np.ndarray) -> np.ndarray:
    """(N, T, C, H, W); an image is a sequence of one frame."""
    return images if images.ndim == 5 else images[:, None]


def resized_like(images_NCHW: np.ndarray, others_NCHW: np.ndarray) -> np.ndarray:
    """`images_NCHW` with the size and channels of `others_NCHW`: pixels are repeated or left out."""
    channels, side = others_NCHW.shape[1], others_NCHW.shape[2]
    positions = np.arange(side) * images_NCHW.shape[2] // side
    sized = images_NCHW[:, :, positions][:, :, :, positions]
    if sized.shape[1] == channels:
        return sized
    return sized.repeat(3, axis=1) if channels == 3 else sized.mean(1, keepdims=True).round().astype(np.uint8)


@dataclass(frozen=True)
class SampleGrid:
    """Draws the grid of the same samples again and again while a GAN trains; picklable.

    Attributes:
        shards: where rows of what the GAN is given come from; not needed for labels alone.
        split: of these shards.
    """

    num_samples: int = 64
    seed: int = 0
    shards: ShardSet | None = None
    split: str = "train"

    def __call__(self, gan: Gan, progress: Progress) -> bytes:
        """The grid as a PNG file's content."""
        dataset = None
        if self.shards is not None and classes_in_turn(gan, 1) is None:
            dataset = open_dataset(self.shards, self.split)
        return png(sample_grid(gan, progress, self.num_samples, self.seed, dataset))
