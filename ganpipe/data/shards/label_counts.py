"""How many samples each class has, read from the shards themselves: nothing is decoded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from .manifest import Manifest
from .tar import read_members


def count_labels(folder: Path, manifest: Manifest, split: str, field: str) -> Counter[int]:
    """Class number -> number of the split's samples with this class in the field with labels `field`.

    Args:
        folder: where the shards are, verified.

    Raises:
        GanpipeError: a shard is no tar of ganpipe's.
    """
    suffix = manifest.fields[field].member(field)
    counts: Counter[int] = Counter()
    for shard in manifest.shards_of(split):
        for name, content in read_members(folder / shard.name):
            if name.partition(".")[2] == suffix:
                counts[int(content)] += 1
    return counts
