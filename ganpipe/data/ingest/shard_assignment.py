"""Which sample lies in which shard: a function of all digests, chosen so that a new sample changes few shards.

Samples are sorted by digest. A shard holds all samples whose digests start with the same bits, with as few bits as give
at most `samples_per_shard` samples. A new sample therefore changes one shard or splits it in two; a removed sample
changes one shard or joins two. (These are the buckets of extendible hashing: Fagin, Nievergelt, Pippenger & Strong
1979, "Extendible hashing: a fast access method for dynamic files".)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .conversion import DIGEST_BYTES

_BITS = 8 * DIGEST_BYTES
NumBetween = Callable[[bytes, bytes], int]
"""(first, stop) -> number of samples with digests in [first, stop)."""


def shard_sizes(num_samples: int, num_between: NumBetween, samples_per_shard: int) -> Iterator[int]:
    """The number of samples in each shard, for samples sorted by digest. No shard is empty.

    If more than `samples_per_shard` samples have the same digest (copies of one image), they fill several shards.

    Args:
        num_samples: of the split.
        num_between: counts the samples of the split in a range of digests.
        samples_per_shard: the most samples in a shard.
    """
    waiting = [(num_samples, 0, 0)]  # number of samples, number of bits with which their digests begin, these bits
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
