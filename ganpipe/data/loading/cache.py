"""The decoded cache: the fields of a split as memory-mapped arrays, made from the shards once per host.

Legend: N samples of the split, P requested rows.
The folder `<cache root>/decoded/<manifest digest>-<split>/` holds `<field>.npy` (N rows of the field's kind, see
`fields.py`) and `complete.json` with checksums of the arrays' parts.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from ...cpus import usable_cpus
from ...errors import GanpipeError
from ..parallel import ordered_map, progress
from ..shards.manifest import Manifest, Shard, verify_shard
from ..shards.shard_set import ShardSet
from .dataset import Dataset
from .open_shard import OpenShard

_FORMAT = 1
_COMPLETE = "complete.json"
_PART_BYTES = 2**24
_MAX_CHECKED_BYTES = 2**30
# Below this size one process is faster: a spawned process takes more than a second to import webdataset (which imports
# torch), and in that time one process decodes about 50 MiB of shards.
_POOL_PAYS_BYTES = 150 * 2**20


class CachedDataset(Dataset):
    """A split whose decoded samples lie on this host."""

    def __init__(self, manifest: Manifest, split: str, arrays: dict[str, np.ndarray]) -> None:
        super().__init__(manifest, split)
        self._arrays = arrays

    def _read(self, indices_P: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: self._arrays[name][indices_P] for name in names}


@dataclass(frozen=True)
class _Job:
    """Decode one shard, which lies in `folder`, into rows [start, start + num_samples) of the arrays."""

    shard: Shard
    folder: Path
    start: int


def _array_shapes(manifest: Manifest, split: str) -> dict[str, tuple[type[Any], tuple[int, ...]]]:
    num_samples = manifest.num_samples(split)
    return {name: (spec.dtype, (num_samples, *spec.row_shape)) for name, spec in manifest.array_fields.items()}


def decoded_bytes(manifest: Manifest, split: str) -> int:
    """Size of the decoded split."""
    shapes = _array_shapes(manifest, split).values()
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in shapes)


def _decode_shard(job: _Job, folder: Path, manifest: Manifest) -> int:
    """Verify a shard and decode its samples into the arrays in `folder`; returns their number."""
    path = verify_shard(job.folder, job.shard)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in manifest.array_fields}
    with OpenShard(path, job.shard, manifest) as shard:
        for row in range(job.shard.num_samples):
            for name, array in arrays.items():
                array[job.start + row] = shard.decoded(name, row)
    for array in arrays.values():
        array.flush()
    return job.shard.num_samples


def _checksums(array: np.ndarray, parts: range) -> dict[str, int]:
    """CRC-32 of some of the array's parts of 16 MiB, by the part's number."""
    flat = array.reshape(-1).view(np.uint8)
    return {str(part): zlib.crc32(flat[part * _PART_BYTES : (part + 1) * _PART_BYTES].data) for part in parts}


def _num_parts(array: np.ndarray) -> int:
    return -(-array.nbytes // _PART_BYTES)


def _build(paths: dict[str, Path], manifest: Manifest, split: str, folder: Path) -> None:
    """Fill `folder` with the arrays; complete.json is written last.

    Args:
        paths: the folder of each shard, by the shard's name.

    Raises:
        GanpipeError: there is not enough disk space, or a shard is damaged.
    """
    shapes, needed = _array_shapes(manifest, split), decoded_bytes(manifest, split)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise GanpipeError(
            f"{folder.parent}: the decoded {split} split takes {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are "
            "free; set GANPIPE_CACHE to a larger disk"
        )
    for name, (dtype, shape) in shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape).flush()
    jobs, start = [], 0
    for shard in manifest.shards_of(split):
        jobs.append(_Job(shard, paths[shard.name], start))
        start += shard.num_samples
    decode = functools.partial(_decode_shard, folder=folder, manifest=manifest)
    num_bytes = sum(job.shard.num_bytes for job in jobs)
    num_processes = min(usable_cpus(), len(jobs)) if num_bytes >= _POOL_PAYS_BYTES else 1
    results = ordered_map(decode, jobs, num_processes)
    with progress(f"decode {split}", start, "image") as bar, contextlib.closing(results):
        for num_samples in results:
            bar.update(num_samples)
    checksums = {}
    for name in shapes:
        array = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        checksums[name] = _checksums(array, range(_num_parts(array)))
    partial = folder / f".{_COMPLETE}"
    partial.write_text(json.dumps({"format": _FORMAT, "crc32": checksums}, indent=2, sort_keys=True) + "\n")
    partial.replace(folder / _COMPLETE)


def _open_complete(folder: Path, manifest: Manifest, split: str) -> CachedDataset | None:
    """The cache in `folder`; None if it is missing, incomplete or damaged.

    A cache of up to 1 GiB is checked completely. Of a larger cache, parts of 16 MiB are checked that are spread evenly
    over each array.
    """
    shapes = _array_shapes(manifest, split)
    try:
        complete = json.loads((folder / _COMPLETE).read_text())
        if complete["format"] != _FORMAT:
            return None
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in shapes}
        total_parts = sum(_num_parts(array) for array in arrays.values())
        every = max(1, -(-total_parts * _PART_BYTES // _MAX_CHECKED_BYTES))
        for name, (dtype, shape) in shapes.items():
            array = arrays[name]
            if array.dtype != dtype or array.shape != shape:
                return None
            found = _checksums(array, range(0, _num_parts(array), every))
            if any(complete["crc32"][name][part] != value for part, value in found.items()):
                return None
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    return CachedDataset(manifest, split, arrays)


def cached_already(manifest: Manifest, split: str, cache_root: Path) -> CachedDataset | None:
    """The split from this host's cache; None if it is not there, incomplete or damaged."""
    return _open_complete(_home(manifest, split, cache_root), manifest, split)


def _home(manifest: Manifest, split: str, cache_root: Path) -> Path:
    return cache_root / "decoded" / f"{manifest.digest[:32]}-{split}"


def open_cached(found: ShardSet, manifest: Manifest, split: str, cache_root: Path) -> CachedDataset:
    """A split from this host's decoded cache. The cache is made if it is missing, incomplete or damaged.

    Several processes may call it at the same time: one builds the cache, the others wait.

    Raises:
        GanpipeError: a shard is missing or does not match the manifest, or there is not enough disk space.
        UnavailableError: the storage of the shards does not answer.
    """
    home = _home(manifest, split, cache_root)
    if (dataset := _open_complete(home, manifest, split)) is not None:
        return dataset
    building, old = home.with_name(f"{home.name}.building"), home.with_name(f"{home.name}.old")
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(home.with_name(f"{home.name}.lock")):
            if (dataset := _open_complete(home, manifest, split)) is not None:
                return dataset
            for leftover in (building, old):  # left by a process that was killed: only one process holds the lock
                shutil.rmtree(leftover, ignore_errors=True)
            building.mkdir()
            try:
                with found.on_this_host(split, cache_root) as paths:
                    _build(paths, manifest, split, building)
                if home.exists():
                    os.replace(home, old)
                os.replace(building, home)
            finally:
                shutil.rmtree(building, ignore_errors=True)
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise GanpipeError(
            f"{home}: the decoded cache cannot be written ({error.strerror or error}); set GANPIPE_CACHE to a folder "
            "that you may write to"
        ) from error
    dataset = _open_complete(home, manifest, split)
    if dataset is None:
        raise GanpipeError(f"{home}: the decoded cache was damaged as it was written; check the disk")
    return dataset
