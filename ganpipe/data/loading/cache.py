"""The decoded cache: the fields of a split as memory-mapped arrays, made from the shards once per host.

Legend: N samples of the split, P requested rows, C channels, H height, W width.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from filelock import FileLock

from ...cpus import usable_cpus
from ...errors import GanpipeError
from ...fields import Frames, Picture
from ..access.host_cache import host_cache
from ..images.decoding import UnreadableImage, decode_png_CHW
from ..parallel import ordered_map, progress
from ..shards.manifest import Manifest, Shard, verify_shard
from ..shards.shard_set import ShardSet
from ..shards.tar import read_members

__all__ = ["Dataset", "ShardSet", "host_cache", "open_dataset"]

_FORMAT = 1
_COMPLETE = "complete.json"
_PART_BYTES = 2**24
_MAX_CHECKED_BYTES = 2**30
# Below this size one process is faster: a spawned process takes more than a second to import webdataset (which imports
# torch), and in that time one process decodes about 50 MiB of shards.
_POOL_PAYS_BYTES = 150 * 2**20


class Dataset:
    """A decoded split. It is opened in the process that reads it and cannot be pickled, which would copy the arrays."""

    def __init__(self, manifest: Manifest, split: str, arrays: dict[str, np.ndarray]) -> None:
        self.manifest = manifest
        self.split = split
        self._arrays = arrays

    def __len__(self) -> int:
        return self.manifest.num_samples(self.split)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.manifest.array_fields)

    def rows(self, indices: np.ndarray, fields: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Copies of these samples by field: P rows of the field's kind, such as uint8 (P, C, H, W) for images.

        Args:
            indices: whole numbers, (P,).
            fields: names of the fields to return; all fields when None.

        Raises:
            IndexError: an index is not in [0, len(self)).
        """
        indices_P = np.asarray(indices, dtype=np.int64)
        if indices_P.size and not (indices_P.min() >= 0 and indices_P.max() < len(self)):
            raise IndexError(f"indices from {indices_P.min()} to {indices_P.max()} in a split of {len(self)} samples")
        return {name: self._arrays[name][indices_P] for name in self._arrays if fields is None or name in fields}

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Dataset is opened in each process with open_dataset(); it is not sent between them")


@dataclass(frozen=True)
class _Job:
    """Decode one shard, which lies in `folder`, into rows [start, start + num_samples) of the arrays."""

    shard: Shard
    folder: Path
    start: int


def _array_shapes(manifest: Manifest, split: str) -> dict[str, tuple[type[Any], tuple[int, ...]]]:
    num_samples = manifest.num_samples(split)
    return {name: (spec.dtype, (num_samples, *spec.row_shape)) for name, spec in manifest.array_fields.items()}


def _decode_shard(job: _Job, folder: Path, manifest: Manifest) -> int:
    """Verify a shard and decode its samples into the arrays in `folder`; returns their number."""
    from webdataset.tariterators import group_by_keys

    path = verify_shard(job.folder, job.shard)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in manifest.array_fields}
    stop = job.start + job.shard.num_samples
    row = job.start
    # webdataset groups the members, but does not read them: its tar reader is several times slower than shards/tar.py,
    # and its URL reader runs names such as `pipe:...` as commands and refuses local files if WDS_SECURE is set.
    members = (
        {"fname": name, "data": content, "__url__": str(path)} for name, content in _known_members(path, manifest)
    )
    try:
        for sample in group_by_keys(members):
            where = f"{path}: sample {sample['__key__']}"
            if row == stop:
                raise GanpipeError(f"{path}: more samples than the {job.shard.num_samples} that the manifest lists")
            for name, array in arrays.items():
                suffix = manifest.fields[name].member(name)
                content = sample.get(suffix)
                if content is None:
                    raise GanpipeError(f"{where} has no .{suffix} member")
                array[row] = _decode_member(name, content, where, manifest)
            row += 1
    except ValueError as error:  # webdataset raises it if a member occurs twice
        raise GanpipeError(f"{path}: {error.args[0]}; run `ganpipe ingest` again") from None
    if row != stop:
        raise GanpipeError(
            f"{path}: {row - job.start} samples, the manifest says {job.shard.num_samples}; run `ganpipe ingest` again"
        )
    for array in arrays.values():
        array.flush()
    return job.shard.num_samples


def _known_members(path: Path, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a shard's members; a member that is not a field of the manifest is an error, so that memory
    is bounded."""
    suffixes = {spec.member(name) for name, spec in manifest.fields.items()}
    for name, content in read_members(path):
        if name.partition(".")[2] not in suffixes:
            raise GanpipeError(f"{path}: its member {name} is not in the manifest's fields; run `ganpipe ingest` again")
        yield name, content


def _decode_member(name: str, content: bytes, where: str, manifest: Manifest) -> np.ndarray | int:
    spec = manifest.fields[name]
    try:
        if isinstance(spec, Picture):
            return decode_png_CHW(content, spec.size, spec.size, spec.channels)
        if isinstance(spec, Frames):
            strip_CHW = decode_png_CHW(content, *spec.file_size, spec.channels)
            return strip_CHW.reshape(spec.channels, spec.num_frames, spec.size, spec.size).swapaxes(0, 1)
        found: np.ndarray | int = spec.parse(content.decode("utf-8"), manifest.names.get(name, ()))
        return found
    except UnreadableImage as error:
        raise GanpipeError(f"{where}: .{spec.member(name)}: {error}") from None
    except ValueError as error:
        raise GanpipeError(f"{where}: .{spec.member(name)} {error}") from None


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
    shapes = _array_shapes(manifest, split)
    needed = sum(math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in shapes.values())
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


def _open_complete(folder: Path, manifest: Manifest, split: str) -> Dataset | None:
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
    return Dataset(manifest, split, arrays)


def open_dataset(shards: Path | str | ShardSet, split: str, cache_root: Path | None = None) -> Dataset:
    """A split of a dataset from this host's decoded cache. The cache is made if it is missing, incomplete or damaged.

    Several processes may call it at the same time: one builds the cache, the others wait.

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
    manifest = found.read_manifest()
    if split not in manifest.splits:
        raise GanpipeError(
            f"{found.folder}: has no {split} split (it has {', '.join(manifest.splits)}); "
            "data.validation_fraction says how much of the data is kept for validation"
        )
    home = (cache_root or host_cache()).absolute() / "decoded" / f"{manifest.digest[:32]}-{split}"
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
