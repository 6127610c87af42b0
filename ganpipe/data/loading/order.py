"""The order in which samples are trained on: an endless stream of epochs, each a permutation computed by a function.

The function is a keyed permutation of [0, num_samples): a Feistel network on the smallest power of two that is not less
than num_samples, with cycle walking (Black & Rogaway 2002, "Ciphers with Arbitrary Finite Domains", section 4). It
needs no memory and no state, so training resumes at any position and every worker knows its share.

Legend: P positions in the stream.
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


class SampleOrder:
    """Dataset indices at the positions of an endless stream of epochs.

    Position p lies in epoch p // num_samples. Every epoch holds every index once, in an order that depends on (seed,
    epoch) only.
    """

    def __init__(self, num_samples: int, seed: int) -> None:
        """
        Raises:
            ValueError: `num_samples` is less than 1.
        """
        if num_samples < 1:
            raise ValueError(f"an order of {num_samples} samples; expected at least 1")
        self.num_samples = num_samples
        self.seed = seed
        num_bits = max(1, (num_samples - 1).bit_length())
        self._num_low_bits = num_bits // 2
        self._low_mask = np.uint64((1 << self._num_low_bits) - 1)
        self._high_mask = np.uint64((1 << (num_bits - self._num_low_bits)) - 1)
        self._ahead_from, self._ahead = 0, np.empty(0, np.int64)

    def indices(self, start: int, stop: int) -> np.ndarray:
        """Indices into the dataset at positions [start, stop) of the stream, int64, (P,).

        Raises:
            ValueError: start is negative or after stop.
        """
        if not 0 <= start <= stop:
            raise ValueError(f"positions [{start}, {stop}); expected 0 <= start <= stop")
        ahead = min(_AHEAD, self.num_samples)  # at most one epoch, because each epoch costs new keys
        if stop - start > ahead:
            return self._compute(start, stop)
        first = self._ahead_from
        if not first <= start <= stop <= first + len(self._ahead):
            self._ahead_from, self._ahead = start, self._compute(start, start + ahead)
        return self._ahead[start - self._ahead_from : stop - self._ahead_from].copy()

    def _compute(self, start: int, stop: int) -> np.ndarray:
        parts = []
        position = start
        while position < stop:
            epoch, offset = divmod(position, self.num_samples)
            count = min(stop - position, self.num_samples - offset)
            parts.append(self._permute(np.arange(offset, offset + count, dtype=np.uint64), epoch))
            position += count
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)

    def _permute(self, positions_P: np.ndarray, epoch: int) -> np.ndarray:
        """The epoch's permutation at positions in [0, num_samples)."""
        key_bytes = hashlib.shake_256(f"order/{self.seed}/{epoch}".encode()).digest(8 * _NUM_ROUNDS)
        keys = np.frombuffer(key_bytes, dtype="<u8").astype(np.uint64)
        result_P = self._encrypt(positions_P, keys)
        # Cycle walking: apply the permutation until the result is below num_samples. That takes fewer than two steps on
        # average, because the domain is less than twice as large.
        outside = np.flatnonzero(result_P >= self.num_samples)
        while outside.size:
            result_P[outside] = self._encrypt(result_P[outside], keys)
            outside = outside[result_P[outside] >= self.num_samples]
        return result_P

    def _encrypt(self, values_P: np.ndarray, keys: np.ndarray) -> np.ndarray:
        low_P = values_P & self._low_mask
        high_P = values_P >> np.uint64(self._num_low_bits)
        for number, key in enumerate(keys):
            if number % 2 == 0:
                high_P = high_P ^ (_mix(low_P + key) & self._high_mask)
            else:
                low_P = low_P ^ (_mix(high_P + key) & self._low_mask)
        return (high_P << np.uint64(self._num_low_bits)) | low_P


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
