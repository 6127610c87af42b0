"""The order in which samples are trained on: an endless stream of epochs, each a permutation computed by a function.

The function is a keyed permutation of [0, n): a Feistel network on the smallest power of two that is not less than n,
with cycle walking (Black & Rogaway 2002, "Ciphers with Arbitrary Finite Domains", section 4). It needs no memory and no
state, so training resumes at any position and every worker knows its share.

Legend: P positions in the stream, S shards, W windows of an epoch.
"""

from __future__ import annotations

import hashlib

import numpy as np

_NUM_ROUNDS = 10
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_AHEAD = 8192
"""Positions that are computed in advance: for the 64 of one batch, the calls of NumPy take far longer than the
computation."""


def mirrored(seed: int, start: int, stop: int) -> np.ndarray:
    """Whether the sample at each of the positions [start, stop) is turned left to right: one in two, bool, (P,). A
    function of seed and position (SplitMix64; Steele 2014, "Fast splittable pseudorandom number generators")."""
    with np.errstate(over="ignore"):
        mixed_P = np.arange(start, stop, dtype=np.uint64) * _GOLDEN + np.uint64(seed)
        mixed_P = (mixed_P ^ (mixed_P >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed_P = (mixed_P ^ (mixed_P >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: np.ndarray = (mixed_P ^ (mixed_P >> np.uint64(31))) >> np.uint64(63) == 1
    return found


class Permutation:
    """A keyed permutation of [0, num_items)."""

    def __init__(self, num_items: int, name: str) -> None:
        """Args:
        name: the key; equal names give equal permutations.
        """
        self._num_items = num_items
        num_bits = max(1, (num_items - 1).bit_length())
        self._num_low_bits = num_bits // 2
        self._low_mask = np.uint64((1 << self._num_low_bits) - 1)
        self._high_mask = np.uint64((1 << (num_bits - self._num_low_bits)) - 1)
        key_bytes = hashlib.shake_256(name.encode()).digest(8 * _NUM_ROUNDS)
        self._keys = np.frombuffer(key_bytes, dtype="<u8").astype(np.uint64)

    def __call__(self, positions_P: np.ndarray) -> np.ndarray:
        """The items at these positions in [0, num_items), int64, (P,)."""
        result_P = self._encrypt(positions_P.astype(np.uint64))
        # Cycle walking: apply the permutation until the result is below num_items. That takes fewer than two steps on
        # average, because the domain is less than twice as large.
        outside = np.flatnonzero(result_P >= self._num_items)
        while outside.size:
            result_P[outside] = self._encrypt(result_P[outside])
            outside = outside[result_P[outside] >= self._num_items]
        return result_P.astype(np.int64)

    def _encrypt(self, values_P: np.ndarray) -> np.ndarray:
        low_P = values_P & self._low_mask
        high_P = values_P >> np.uint64(self._num_low_bits)
        for number, key in enumerate(self._keys):
            if number % 2 == 0:
                high_P = high_P ^ (_mix(low_P + key) & self._high_mask)
            else:
                low_P = low_P ^ (_mix(high_P + key) & self._low_mask)
        return (high_P << np.uint64(self._num_low_bits)) | low_P


class SampleOrder:
    """Dataset indices at the positions of an endless stream of epochs.

    Position p lies in epoch p // num_samples. Every epoch holds every index once, in an order that depends on (seed,
    epoch) only. With a window, an epoch is an order of the shards, cut into windows of so many shards, and the samples
    are in a random order within each window: whoever reads them needs the shards of a window or two at a time.
    """

    def __init__(self, num_samples: int | np.ndarray, seed: int | str, window: int | None = None) -> None:
        """
        Args:
            num_samples: of the dataset, or of each shard, (S,); a shard may have no sample.
            seed: equal ones give equal orders.
            window: number of shards; all when None. All shards are in one order, whatever the window, where there are
                no more than it holds.

        Raises:
            ValueError: there is no sample, or `window` is less than 1.
        """
        self._sizes_S = np.atleast_1d(np.asarray(num_samples, dtype=np.int64))
        self._starts_S = np.cumsum(self._sizes_S) - self._sizes_S
        self.num_samples = int(self._sizes_S.sum())
        self._window = len(self._sizes_S) if window is None else window
        self.seed = seed
        if self.num_samples < 1 or self._window < 1:
            raise ValueError(f"an order of {self.num_samples} samples in windows of {self._window} shards")
        self._ahead_from, self._ahead = 0, np.empty(0, np.int64)
        self._last_start = 0
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def indices(self, start: int, stop: int) -> np.ndarray:
        """Indices into the dataset at positions [start, stop) of the stream, int64, (P,).

        Raises:
            ValueError: start is negative or after stop.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"positions [{start}, {stop}); expected 0 <= start <= stop")
        ahead = min(_AHEAD, self.num_samples)  # at most one epoch, because each epoch costs new keys
        stride, self._last_start = start - self._last_start, start
        if stop - start > ahead or stride >= ahead:  # what is computed ahead would serve no other call
            return self._compute(start, stop)
        first = self._ahead_from
        if not first <= start <= stop <= first + len(self._ahead):
            self._ahead_from, self._ahead = start, self._compute(start, start + ahead)
        return self._ahead[start - self._ahead_from : stop - self._ahead_from].copy()

    def window_at(self, position: int) -> tuple[list[int], int]:
        """Numbers of the shards from which the window at `position` takes its samples, and where that window ends."""
        epoch, offset = divmod(position, self.num_samples)
        shards_S, stops_W = self._epoch(epoch)
        window = int(np.searchsorted(stops_W, offset, side="right"))
        return self._of_window(shards_S, window).tolist(), epoch * self.num_samples + int(stops_W[window])

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the epoch's shards, (S,), and the offset in the epoch at which each window ends, (W,)."""
        if epoch not in self._epochs:
            num_shards = len(self._sizes_S)
            shards_S = np.arange(num_shards)
            if self._window < num_shards:
                shards_S = Permutation(num_shards, f"shards/{self.seed}/{epoch}")(shards_S)
            lasts_W = np.minimum(np.arange(self._window, num_shards + self._window, self._window), num_shards) - 1
            self._epochs = {key: value for key, value in self._epochs.items() if key == epoch - 1}
            self._epochs[epoch] = shards_S, np.cumsum(self._sizes_S[shards_S])[lasts_W]
        return self._epochs[epoch]

    def _of_window(self, shards_S: np.ndarray, window: int) -> np.ndarray:
        return shards_S[window * self._window : (window + 1) * self._window]

    def _compute(self, start: int, stop: int) -> np.ndarray:
        parts = [np.empty(0, np.int64)]
        position = start
        while position < stop:
            epoch, offset = divmod(position, self.num_samples)
            shards_S, stops_W = self._epoch(epoch)
            window = int(np.searchsorted(stops_W, offset, side="right"))
            begin = int(stops_W[window - 1]) if window else 0
            count = min(stop - position, int(stops_W[window]) - offset)
            name = f"order/{self.seed}/{epoch}" + (f"/{window}" if len(stops_W) > 1 else "")
            places_P = np.arange(offset - begin, offset - begin + count)
            within_P = Permutation(int(stops_W[window]) - begin, name)(places_P)
            held = self._of_window(shards_S, window)
            ends = np.cumsum(self._sizes_S[held])
            which_P = np.searchsorted(ends, within_P, side="right")
            parts.append(within_P - (ends - self._sizes_S[held])[which_P] + self._starts_S[held][which_P])
            position += count
        return np.concatenate(parts)


def _mix(values_P: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014): every output bit depends on every input bit."""
    values_P = (values_P ^ (values_P >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values_P = (values_P ^ (values_P >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values_P ^ (values_P >> np.uint64(31))


def share(start: int, num: int, rank: int, world_size: int) -> tuple[int, int]:
    """The positions (first, stop) that the worker `rank` takes of the global batch [start, start + num).

    The shares of all ranks are contiguous, follow each other in the order of the ranks, cover the batch, and differ by
    at most one in size. A share may be empty.

    Raises:
        ValueError: `rank` is not in [0, world_size), or `num` is negative.
    """
    if not 0 <= rank < world_size or num < 0:
        raise ValueError(f"rank {rank} of {world_size} for a batch of {num}; expected 0 <= rank < world_size, num >= 0")
    return start + num * rank // world_size, start + num * (rank + 1) // world_size
