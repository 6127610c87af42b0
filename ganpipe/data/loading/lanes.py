"""Orders of samples side by side: each lane has samples of its own, so that a host needs the shards of its workers'
lanes only, however many hosts there are (MosaicML Streaming's canonical nodes are the model).

Legend: P positions in the stream, S shards, L lanes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .order import SampleOrder


@dataclasses.dataclass(frozen=True)
class Shuffling:
    """Within what the samples are shuffled.

    Attributes:
        window_shards: number of shards of a window; all when None.
        num_lanes: the lanes that the samples are dealt to. Lane l has the l-th part of the dataset, and the l-th part
            of every batch.
        batch_size: positions of a batch, a multiple of `num_lanes`.
    """

    window_shards: int | None = None
    num_lanes: int = 1
    batch_size: int = 1


@dataclasses.dataclass(frozen=True)
class Needed:
    """Shards that a lane reads from.

    Attributes:
        now: numbers of those that hold the samples of the step.
        later: of those of the window after it; empty where the step reads two windows, because the next step looks
            further ahead.
        until: the position up to which `now` is enough.
    """

    now: list[int]
    later: list[int]
    until: int


class LanedOrder:
    """Dataset indices at the positions of an endless stream of batches.

    Within its lane a sample has the place that `SampleOrder` gives it. A lane's epoch is its part of the dataset; the
    parts differ by at most one sample. With a single lane this is `SampleOrder`.
    """

    def __init__(self, sizes_S: np.ndarray, seed: int, shuffling: Shuffling) -> None:
        """
        Args:
            sizes_S: samples of each shard, int64, (S,).

        Raises:
            ValueError: there are fewer samples than lanes.
        """
        num_lanes, stops_S = shuffling.num_lanes, np.cumsum(sizes_S)
        bounds_L = int(stops_S[-1]) * np.arange(num_lanes + 1) // num_lanes
        self._batch_size, self._part = shuffling.batch_size, shuffling.batch_size // num_lanes
        self._starts_L = bounds_L[:-1]
        self._first_shards_L = np.searchsorted(stops_S, self._starts_L, side="right")
        self._lanes: list[SampleOrder] = []
        for lane in range(num_lanes):
            start, stop = bounds_L[lane : lane + 2]
            inside_S = np.minimum(stops_S, stop) - np.maximum(stops_S - sizes_S, start)
            last = int(np.searchsorted(stops_S, stop, side="left"))
            of_lane_S = inside_S[self._first_shards_L[lane] : last + 1]
            key = seed if num_lanes == 1 else f"{seed}/lane {lane} of {num_lanes}"
            self._lanes.append(SampleOrder(of_lane_S, key, shuffling.window_shards))

    def indices(self, start: int, stop: int) -> np.ndarray:
        """Indices into the dataset at positions [start, stop) of the stream, int64, (P,).

        Raises:
            ValueError: start is negative or after stop.
        """
        if len(self._lanes) == 1 or not 0 <= start < stop:
            return self._lanes[0].indices(start, stop)
        parts, position = [], start
        while position < stop:
            batch, place = divmod(position, self._batch_size)
            lane, offset = divmod(place, self._part)
            count = min(stop - position, self._part - offset)
            first = batch * self._part + offset
            parts.append(self._starts_L[lane] + self._lanes[lane].indices(first, first + count))
            position += count
        return np.concatenate(parts)

    def lanes_at(self, start: int, stop: int) -> range:
        """The lanes of the places [start, stop) of a batch."""
        return range(start // self._part, -(-stop // self._part)) if start < stop else range(0)

    def needed(self, start: int, stop: int) -> list[Needed]:
        """What each lane needs for the positions [start, stop), which are whole batches."""
        return [self._needed(lane, start, stop) for lane in range(len(self._lanes))]

    def _needed(self, lane: int, start: int, stop: int) -> Needed:
        first, last = start // self._batch_size * self._part, -(-stop // self._batch_size) * self._part
        order, first_shard = self._lanes[lane], int(self._first_shards_L[lane])
        now, until = order.window_at(first)
        crosses = until < last
        later, following = order.window_at(until)
        while until < last:
            now, until = now + later, following
            later, following = order.window_at(until)
        return Needed(
            [first_shard + number for number in now],
            [] if crosses else [first_shard + number for number in later],
            stop if crosses else until // self._part * self._batch_size,
        )
