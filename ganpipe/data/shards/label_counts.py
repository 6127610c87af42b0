"""How many samples each class has, read from the shards themselves: nothing is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from .manifest import Manifest, Shard
from .tar import read_members


def count_labels(find: Callable[[Shard], Path], manifest: Manifest, split: str, field: str) -> Counter[int]:
    """Class number -> number of the split's samples with this class in the field with labels `field`.

    Args:
        find: shard -> the folder with it.

    Raises:
        GanpipeError: a shard is no tar of ganpipe's.
    """
    suffix = manifest.fields[field].member(field)
    counts: Counter[int] = Counter()
    for shard in manifest.shards_of(split):
        for name, content in read_members(find(shard) / shard.name):
            if name.partition(".")[2] == suffix:
                counts[int(content)] += 1
    return counts
