"""Some of a dataset's training images as they lie in its shards, for people: what ingest made of them.

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ...fields import Picture
from ..images.decoding import decode_png_CHW
from ..shards.manifest import Manifest
from ..shards.tar import find_members

NUM_SHOWN = 64
MOST_COLUMNS = 32
"""Of more classes than these there is no column a class."""
MOST_ROWS = 8
"""Of few classes."""
LARGEST_SIDE = 256
"""Larger images are shown reduced to this side."""
_MOST_SEARCHED = 50_000
"""Samples, in which those of rare classes are looked for."""


def preview(folder: Path, manifest: Manifest) -> tuple[np.ndarray, int]:
    """The first training images, which is a random choice: shards are ordered by digest. (N, C, H, W) and columns.

    With labels (at most 32 classes) a column is a class, and white where it has too few images.
    """
    num_classes = len(manifest.classes)
    by_class = 0 < num_classes <= MOST_COLUMNS
    columns = num_classes if by_class else math.ceil(math.sqrt(min(NUM_SHOWN, manifest.num_samples("train"))))
    rows = min(MOST_ROWS, max(2, NUM_SHOWN // columns)) if by_class else math.ceil(NUM_SHOWN / columns)
    side = min(manifest.image.size, LARGEST_SIDE)
    images_NCHW = np.full((rows * columns, manifest.image.channels, side, side), 255, np.uint8)
    filled: Counter[int] = Counter()
    for number, (label, content) in enumerate(_samples(folder, manifest)):
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


def _samples(folder: Path, manifest: Manifest) -> Iterator[tuple[int, bytes]]:
    """Label (0 without labels) and PNG of each training sample; of several images per sample the main field's."""
    image_suffix, name = manifest.image.member(manifest.main), manifest.label
    label_suffix = manifest.fields[name].member(name) if name is not None else None
    for shard in manifest.shards_of("train"):
        path = folder / shard.name
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            label = 0
            for name, start, stop in find_members(path, content):  # a sample's label comes before its images
                suffix = name.partition(".")[2]
                if suffix == label_suffix:
                    label = int(content[start:stop])
                elif suffix == image_suffix:
                    yield label, content[start:stop]


def _shown(content: bytes, spec: Picture, side: int) -> np.ndarray:
    image_CHW = decode_png_CHW(content, spec.size, spec.size, spec.channels)
    if side == spec.size:
        return image_CHW
    image = Image.fromarray(image_CHW[0] if spec.channels == 1 else image_CHW.transpose(1, 2, 0))
    pixels = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))
    return pixels[None] if spec.channels == 1 else pixels.transpose(2, 0, 1)
