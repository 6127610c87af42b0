"""Samples read from the shards themselves, of which this host holds a window or two at a time.

Shards in a folder that this host sees are read in place. Others are fetched ahead of need into the host's cache, which
holds a stated number of bytes: what was not read for longest goes first.

Legend: P requested rows, S shards.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from ...cpus import usable_cpus
from ...errors import GanpipeError
from ..access.host_cache import BYTES_VARIABLE, cache_limit
from ..shards.manifest import Manifest, Shard, verify_shard
from ..shards.shard_set import STORE, ShardSet, lock_of
from .dataset import Dataset
from .open_shard import OpenShard

MOST_OPEN = 256
"""Shards that a process has open: each is a file. A window is at most half of them."""
_NUM_CONNECTIONS = 8
_RESERVED = ".reserved"
"""A file without content, of the size of the shard that is being fetched into its folder."""
_THREADS_PAY_BYTES = 2**20
"""Decoded bytes from which on several threads decode the rows of one request."""


class StreamedDataset(Dataset):
    """A split whose samples are decoded when they are asked for, each time."""

    def __init__(self, found: ShardSet, manifest: Manifest, split: str, cache_root: Path) -> None:
        super().__init__(manifest, split)
        self._found, self._is_here = found, found.manifest is None or found.is_here()
        self._stops_S = np.cumsum(self.shard_sizes_S)
        self._room = _Room(cache_root / STORE)
        self._open: dict[int, Future[OpenShard]] = {}  # the shard that was used last comes last
        self._lock = threading.Lock()
        self._expected: dict[str, set[int]] = {}
        self._fetchers = ThreadPoolExecutor(_NUM_CONNECTIONS, "shards")
        self._decoders = ThreadPoolExecutor(usable_cpus(), "decode")

    def require_window(self, window: int | None) -> None:
        held = len(self.shards) if window is None else min(2 * window, len(self.shards))
        got = f"train.window_shards: got {'null (all shards)' if window is None else window}"
        if held > MOST_OPEN:
            raise GanpipeError(
                f"{got}, and the {self.split} split is streamed from {len(self.shards):,} shards, of which at most "
                f"{MOST_OPEN} are held at a time: two windows of {MOST_OPEN // 2}; set train.window_shards to "
                f"{MOST_OPEN // 2} or fewer, or data.read to cache"
            )
        sizes = sorted((shard.num_bytes for shard in self.shards), reverse=True)
        if self._is_here or sum(sizes[:held]) <= self._room.limit:
            return
        most = int(np.searchsorted(np.cumsum(sizes), self._room.limit, side="right"))
        raise GanpipeError(
            f"{got}: {held} shards of the {self.split} split are held at a time, {sum(sizes[:held]) / 2**30:.2f} GiB, "
            f"and this host has room for {self._room.limit / 2**30:.2f} GiB ({self._room.why}); "
            + (
                f"set train.window_shards to {most // 2} or fewer, or {BYTES_VARIABLE} higher"
                if most >= 2
                else f"set {BYTES_VARIABLE} higher, or make smaller shards (data.samples_per_shard)"
            )
        )

    def expect(self, who: str, now: Sequence[int], later: Sequence[int]) -> None:
        wanted = {*now, *later}
        if self._expected.get(who) == wanted:
            return
        self._expected[who] = wanted
        self._let_go(wanted)
        self._bring([*now, *later])
        for number in now:
            self._shard(number)

    def close(self) -> None:
        self._fetchers.shutdown(wait=True, cancel_futures=True)
        self._decoders.shutdown(wait=True, cancel_futures=True)
        for future in self._open.values():
            if not future.cancelled() and future.exception() is None:
                future.result().close()
        self._open.clear()

    def _read(self, indices_P: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        which_P = np.searchsorted(self._stops_S, indices_P, side="right")
        rows_P = indices_P - (self._stops_S - self.shard_sizes_S)[which_P]
        specs = {name: self.manifest.fields[name] for name in names}
        found = {name: np.empty((len(indices_P), *spec.row_shape), spec.dtype) for name, spec in specs.items()}
        by_shard_P = np.argsort(which_P, kind="stable")
        numbers, starts = np.unique(which_P[by_shard_P], return_index=True)
        for place, chosen_P in enumerate(np.split(by_shard_P, starts[1:])):
            ahead = numbers[place : place + _NUM_CONNECTIONS].tolist()
            self._let_go(set(ahead))
            self._bring(ahead)
            if len(chosen_P):
                self._decode(self._shard(ahead[0]), chosen_P, rows_P, found)
        return found

    def _decode(self, shard: OpenShard, chosen_P: np.ndarray, rows_P: np.ndarray, found: dict[str, np.ndarray]) -> None:
        """Fill the chosen rows of `found` with those of one shard."""

        def decode(part: np.ndarray) -> None:
            for place in part:
                for name, array in found.items():
                    array[place] = shard.decoded(name, int(rows_P[place]))

        num_bytes = sum(array.nbytes // max(1, len(array)) for array in found.values()) * len(chosen_P)
        if num_bytes < _THREADS_PAY_BYTES:
            decode(chosen_P)
        else:
            list(self._decoders.map(decode, np.array_split(chosen_P, usable_cpus())))

    def _bring(self, numbers: Iterable[int]) -> None:
        """Begin to open these shards, in this order."""
        with self._lock:
            for number in numbers:
                future = self._open.pop(number, None)
                if future is None or (future.done() and future.exception() is not None):
                    future = self._fetchers.submit(self._opened, number)
                self._open[number] = future

    def _let_go(self, wanted: set[int]) -> None:
        """Close the shards that nobody expects, but for as many as may stay open."""
        expected = wanted.union(*self._expected.values())
        with self._lock:
            idle = [number for number, future in self._open.items() if number not in expected and future.done()]
            for number in idle[: max(0, len(self._open) + len(wanted) - MOST_OPEN)] if self._is_here else idle:
                future = self._open.pop(number)
                if future.exception() is None:
                    future.result().close()

    def _shard(self, number: int) -> OpenShard:
        with self._lock:
            future = self._open[number]
        return future.result()

    def _opened(self, number: int) -> OpenShard:
        """Runs in a thread."""
        shard = self.shards[number]
        if self._is_here:
            return OpenShard(verify_shard(Path(self._found.folder).absolute(), shard), shard, self.manifest)
        while True:
            folder = self._room.folder_with(shard, self._found, self._names_expected())
            with contextlib.suppress(FileNotFoundError):  # another process has just made room
                return OpenShard(folder / shard.name, shard, self.manifest)

    def _names_expected(self) -> set[str]:
        """Contents of the shards that this process holds or waits for."""
        with self._lock:
            return {self.shards[number].sha256 for number in self._open}


class _Room:
    """The folder of fetched shards, as `<sha256>/<name>`, which holds at most `limit` bytes."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self.limit, self.why = cache_limit(store)

    def folder_with(self, shard: Shard, found: ShardSet, kept: set[str]) -> Path:
        """The folder with this shard; room is made for it if it has to be fetched.

        Args:
            kept: contents that may not be removed.
        """
        self._store.mkdir(parents=True, exist_ok=True)
        folder = found.fetched(shard, self._store, lambda: self._make_room(shard, kept))
        with contextlib.suppress(OSError):  # another process removed it
            (folder / _RESERVED).unlink(missing_ok=True)
            os.utime(folder)
        return folder

    def _make_room(self, shard: Shard, kept: set[str]) -> None:
        """Remove shards, the one that was opened longest ago first, until there is room for another, and reserve that
        room. A process that has a removed shard open can still read it."""
        with FileLock(self._store / ".room.lock"):
            there = []
            for folder in self._store.iterdir():
                with contextlib.suppress(OSError):  # removed meanwhile
                    if folder.is_dir() and folder.name != shard.sha256:
                        there.append((folder.stat().st_mtime_ns, folder, _bytes_of(folder)))
            total = shard.num_bytes + sum(num_bytes for _, _, num_bytes in there)
            for _, folder, num_bytes in sorted(there):
                if total <= self.limit:
                    break
                if folder.name not in kept and self._remove(folder):
                    total -= num_bytes
            reserved = self._store / shard.sha256 / _RESERVED
            reserved.parent.mkdir(exist_ok=True)
            reserved.touch()
            os.truncate(reserved, shard.num_bytes)

    def _remove(self, folder: Path) -> bool:
        """Whether it could be removed: nobody is fetching it."""
        try:
            with FileLock(lock_of(self._store, folder.name), timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
                return True
        except Timeout:
            return False


def _bytes_of(folder: Path) -> int:
    """Of a shard that lies there, or is to lie there soon."""
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    return max(sizes.pop(_RESERVED, 0), sum(sizes.values()))
