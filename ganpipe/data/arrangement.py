"""Which sample lies in which shard: a function of the samples' digests alone, in which one more moves few others.

Samples are ordered by digest. A shard holds all whose digests start with the same bits: as few bits as leave at most
`samples_per_shard` in it. One more sample therefore changes the one shard that it falls into, or splits it in two; one
less changes one, or joins two. (The buckets of extendible hashing: Fagin, Nievergelt, Pippenger & Strong 1979.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from .conversion import DIGEST_BYTES

_BITS = 8 * DIGEST_BYTES


def shard_ranges(digests: Sequence[bytes], samples_per_shard: int) -> Iterator[tuple[int, int]]:
    """The shards as ranges [start, stop) of the sorted digests, none empty, in order.

    More than `samples_per_shard` equal digests (copies of one image) fill several shards.
    """
    waiting = [(0, len(digests), 0, 0)]  # start, stop, number of common bits, these bits
    while waiting:
        start, stop, depth, prefix = waiting.pop()
        if stop - start <= samples_per_shard or depth == _BITS:
            for first in range(start, stop, samples_per_shard):
                yield first, min(stop, first + samples_per_shard)
            continue
        upper = 2 * prefix + 1
        middle = bisect_left(digests, (upper << (_BITS - depth - 1)).to_bytes(DIGEST_BYTES, "big"), start, stop)
        waiting += [(middle, stop, depth + 1, upper), (start, middle, depth + 1, upper - 1)]
