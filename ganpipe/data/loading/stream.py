"""Samples read from the shards themselves, of which this host holds a window or two at a time.

Shards in a folder that this host sees are read in place. Others are fetched ahead of need into the host's cache, which
holds a stated number of bytes: what was not read for longest goes first.

Legend: P requested rows, S shards.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ...cpus import usable_cpus
from ...errors import GanpipeError
from ..access.host_cache import BYTES_VARIABLE
from ..shards.manifest import Manifest, verify_shard
from ..shards.room import Room
from ..shards.shard_set import ShardSet
from .dataset import Dataset
from .open_shard import OpenShard

MOST_OPEN = 256
"""Shards that a process has open: each is a file. A window is at most half of them."""
_NUM_CONNECTIONS = 8
_THREADS_PAY_BYTES = 2**20
"""Decoded bytes from which on several threads decode the rows of one request."""


class StreamedDataset(Dataset):
    """A split whose samples are decoded when they are asked for, each time."""

    def __init__(self, found: ShardSet, manifest: Manifest, split: str, cache_root: Path) -> None:
        super().__init__(manifest, split)
        self._found, self._is_here = found, found.is_in_folder()
        self._stops_S = np.cumsum(self.shard_sizes_S)
        self._room = Room(cache_root)
        self._open: dict[int, Future[OpenShard]] = {}  # the shard that was used last comes last
        self._lock = threading.Lock()
        self._expected: dict[str, set[int]] = {}
        self._fetchers = ThreadPoolExecutor(_NUM_CONNECTIONS, "shards")
        self._decoders = ThreadPoolExecutor(usable_cpus(), "decode")

    def require_window(self, window: int | None, num_orders: int = 1, num_read: int | None = None) -> None:
        most_read = len(self.shards) if num_read is None else min(num_read, len(self.shards))
        held = most_read if window is None else min(2 * window * num_orders, most_read)
        got = f"train.window_shards: got {'null (all shards)' if window is None else window}"
        if held > MOST_OPEN:
            raise GanpipeError(
                f"{got}, and the {self.split} split is streamed from {len(self.shards):,} shards, of which at most "
                f"{MOST_OPEN} are held at a time; set train.window_shards to {MOST_OPEN // (2 * num_orders)} or fewer, "
                "or data.read to cache"
            )
        sizes = sorted((shard.num_bytes for shard in self.shards), reverse=True)
        if self._is_here or sum(sizes[:held]) <= self._room.limit:
            return
        most = int(np.searchsorted(np.cumsum(sizes), self._room.limit, side="right"))
        raise GanpipeError(
            f"{got}: {held} shards of the {self.split} split are held at a time, {sum(sizes[:held]) / 2**30:.2f} GiB, "
            f"and this host has room for {self._room.limit / 2**30:.2f} GiB ({self._room.why}); "
            + (
                f"set train.window_shards to {most // (2 * num_orders)} or fewer, or {BYTES_VARIABLE} higher"
                if most >= 2 * num_orders
                else f"set {BYTES_VARIABLE} higher, or make smaller shards (data.samples_per_shard)"
            )
        )

    def expect(self, who: str, now: Sequence[int], later: Sequence[int]) -> None:
        self._expected[who] = {*now, *later}
        self._let_go(self._expected[who])
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
            folder = self._found.fetched(shard, self._room, self._held())
            with contextlib.suppress(FileNotFoundError):  # another process has made room just now
                return OpenShard(folder / shard.name, shard, self.manifest)

    def _held(self) -> frozenset[str]:
        """Contents of the shards that this process has open or waits for."""
        with self._lock:
            return frozenset(self.shards[number].sha256 for number in self._open)
