"""Which sample lies in which shard: a function of the samples' digests alone, in which one more moves few others.

Samples are ordered by digest. A shard holds all whose digests start with the same bits: as few bits as leave at most
`samples_per_shard` in it. One more sample therefore changes the one shard that it falls into, or splits it in two; one
less changes one, or joins two. (The buckets of extendible hashing: Fagin, Nievergelt, Pippenger & Strong 1979.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .conversion import DIGEST_BYTES

_BITS = 8 * DIGEST_BYTES
NumBetween = Callable[[bytes, bytes], int]


def shard_sizes(num_samples: int, num_between: NumBetween, samples_per_shard: int) -> Iterator[int]:
    """How many of the samples, ordered by digest, each shard holds: none is empty.

    More than `samples_per_shard` equal digests (copies of one image) fill several shards.

    Args:
        num_between: how many samples have digests in [first, stop).
    """
    waiting = [(num_samples, 0, 0)]  # number of samples, number of bits that their digests begin with, these bits
    while waiting:
        number, depth, prefix = waiting.pop()
        if number <= samples_per_shard or depth == _BITS:
            yield from (min(samples_per_shard, number - first) for first in range(0, number, samples_per_shard))
            continue
        lower, upper = 2 * prefix, 2 * prefix + 1
        num_lower = num_between(_first(lower, depth + 1), _first(upper, depth + 1))
        waiting += [(number - num_lower, depth + 1, upper), (num_lower, depth + 1, lower)]


def _first(prefix: int, num_bits: int) -> bytes:
    """The first digest that begins with these bits."""
    return (prefix << (_BITS - num_bits)).to_bytes(DIGEST_BYTES, "big")
