"""A preview for people: some training images as ingest wrote them into the shards.

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ...fields import Frames, Picture
from ..images.decoding import decode_png_CHW
from ..shards.manifest import Manifest, Shard
from ..shards.tar import find_members

NUM_SHOWN = 64
MOST_COLUMNS = 32
"""Up to this number of classes, each column shows one class."""
MOST_ROWS = 8
"""The most rows if each column shows one class."""
LARGEST_SIDE = 256
"""Larger images are reduced to this height and width, in pixels."""
_MOST_SEARCHED = 50_000
"""The search for images of rare classes ends after this number of samples."""


def preview(find: Callable[[Shard], Path], manifest: Manifest) -> tuple[np.ndarray, int]:
    """The first training images in the shards: a random choice, because samples are ordered by digest. Of a sequence of
    frames the first one is shown.

    With labels of at most MOST_COLUMNS classes, each column shows one class; it ends in white images if the class has
    too few.

    Args:
        find: shard -> the folder with it.

    Returns:
        The images row by row, uint8, (N, C, H, W), and the number of columns.
    """
    num_classes = len(manifest.classes)
    by_class = 0 < num_classes <= MOST_COLUMNS
    columns = num_classes if by_class else math.ceil(math.sqrt(min(NUM_SHOWN, manifest.num_samples("train"))))
    rows = min(MOST_ROWS, max(2, NUM_SHOWN // columns)) if by_class else math.ceil(NUM_SHOWN / columns)
    side = min(manifest.image.size, LARGEST_SIDE)
    images_NCHW = np.full((rows * columns, manifest.image.channels, side, side), 255, np.uint8)
    filled: Counter[int] = Counter()
    for number, (label, content) in enumerate(_samples(find, manifest)):
        if by_class:
            row, column = filled[label], label
        else:
            row, column = divmod(number, columns)
        if row < rows:
            images_NCHW[row * columns + column] = _shown(content, manifest.image, side)
            filled[label] += 1
        if filled.total() == len(images_NCHW) or number + 1 == _MOST_SEARCHED:
            break
    last = max(filled.values(), default=0) if by_class else math.ceil(filled.total() / columns)
    return images_NCHW[: last * columns], columns


def _samples(find: Callable[[Shard], Path], manifest: Manifest) -> Iterator[tuple[int, bytes]]:
    """(label, PNG of the main field) of each training sample; the label is 0 if there are no labels."""
    image_suffix, name = manifest.image.member(manifest.main), manifest.label
    label_suffix = manifest.fields[name].member(name) if name is not None else None
    for shard in manifest.shards_of("train"):
        path = find(shard) / shard.name
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            label = 0
            for name, start, stop in find_members(path, content):  # a sample's label comes before its images
                suffix = name.partition(".")[2]
                if suffix == label_suffix:
                    label = int(content[start:stop])
                elif suffix == image_suffix:
                    yield label, content[start:stop]


def _shown(content: bytes, spec: Picture | Frames, side: int) -> np.ndarray:
    image_CHW = decode_png_CHW(content, *spec.file_size, spec.channels)[:, : spec.size]
    if side == spec.size:
        return image_CHW
    image = Image.fromarray(image_CHW[0] if spec.channels == 1 else image_CHW.transpose(1, 2, 0))
    pixels = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))
    return pixels[None] if spec.channels == 1 else pixels.transpose(2, 0, 1)
