"""Images side by side. Equal images give equal bytes: a PNG of pixels only, without date, software or title.

Legend: N images, C channels (1 or 3), H height, W width.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

_GAP, _BACKGROUND = 2, 255
_SHOWN_SIDE = 64
"""Smaller images are enlarged by a whole factor to about this side, pixel by pixel."""


def grid(
    images_NCHW: np.ndarray,
    columns: int | None = None,
    wide_gap_after: int | None = None,
    wide_gap_every: int | None = None,
) -> Image.Image:
    """uint8 images (N, C, H, W) in rows, the first at the top left; about square where `columns` is left out.

    Args:
        wide_gap_after: puts one wide gap behind this many columns.
        wide_gap_every: puts a wide gap behind each group of this many columns.
    """
    num_images, channels, height, width = images_NCHW.shape
    columns = columns or math.ceil(math.sqrt(num_images))
    rows = math.ceil(num_images / columns)
    factor = max(1, round(_SHOWN_SIDE / max(height, width)))
    enlarged = images_NCHW.repeat(factor, axis=2).repeat(factor, axis=3)
    height, width = height * factor, width * factor
    gaps = (
        [wide_gap_after]
        if wide_gap_after
        else list(range(wide_gap_every, columns, wide_gap_every))
        if wide_gap_every
        else []
    )
    shape = (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP + 4 * _GAP * len(gaps), channels)
    canvas = np.full(shape, _BACKGROUND, np.uint8)
    for index, image_CHW in enumerate(enlarged):
        row, column = divmod(index, columns)
        top = _GAP + row * (height + _GAP)
        left = _GAP + column * (width + _GAP) + 4 * _GAP * sum(column >= gap for gap in gaps)
        canvas[top : top + height, left : left + width] = image_CHW.transpose(1, 2, 0)
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)


def ragged_grid(rows: Sequence[np.ndarray]) -> Image.Image:
    """Rows of several lengths, each uint8 (N, C, H, W); shorter ones end in the background."""
    columns = max(map(len, rows))
    filled = [np.concatenate([row, blank(columns - len(row), row)]) for row in rows]
    return grid(np.concatenate(filled), columns)


def blank(num_images: int, like_NCHW: np.ndarray) -> np.ndarray:
    """Images of the background's colour, with the shape of others."""
    return np.full((num_images, *like_NCHW.shape[1:]), _BACKGROUND, np.uint8)


def gif(frames: Sequence[Image.Image], milliseconds: int) -> bytes:
    """A film as a file's content; it begins again at its end.

    Args:
        milliseconds: how long each frame is shown, a multiple of 10.
    """
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=list(frames[1:]), duration=milliseconds, loop=0)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    """The image as a file's content."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()
