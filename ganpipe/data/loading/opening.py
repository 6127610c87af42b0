"""A split, opened on this host: from the decoded cache, or streamed from its shards."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from ...errors import GanpipeError
from ..access.host_cache import cache_limit, host_cache
from ..shards.shard_set import ShardSet
from .cache import cached_already, decoded_bytes, open_cached
from .dataset import Dataset
from .stream import StreamedDataset


def open_dataset(shards: Path | str | ShardSet, split: str, cache_root: Path | None = None) -> Dataset:
    """A split of a dataset. Where the set's `read` is `auto`, the split is decoded into this host's cache if it fits,
    else it is streamed.

    Args:
        shards: the folder with manifest.json; or a set of shards, of which this host fetches those that it lacks.
        split: `train` or `validation`.
        cache_root: the folder of the cache; `host_cache()` when None.

    Raises:
        GanpipeError: there is no manifest or no such split, a shard is missing or does not match the manifest, or there
            is not enough disk space.
        UnavailableError: the storage of the shards does not answer.
    """
    found = shards if isinstance(shards, ShardSet) else ShardSet(str(shards))
    manifest, root = found.read_manifest(), (cache_root or host_cache()).absolute()
    if split not in manifest.splits:
        raise GanpipeError(
            f"{found.folder}: has no {split} split (it has {', '.join(manifest.splits)}); "
            "data.validation_fraction says how much of the data is kept for validation"
        )
    if found.read == "cache":
        return open_cached(found, manifest, split, root)
    if found.read == "auto":
        if (cached := cached_already(manifest, split, root)) is not None:
            return cached
        needed, (limit, why) = decoded_bytes(manifest, split), cache_limit(root)
        if needed <= limit:
            return open_cached(found, manifest, split, root)
        _tell(f"the {split} split is read from its shards: decoded it takes {needed / 2**30:,.1f} GiB ({why})")
    return StreamedDataset(found, manifest, split, root)


@functools.cache
def _tell(line: str) -> None:
    """Print it, once per process."""
    print(f"data.read: {line}", file=sys.stderr, flush=True)
