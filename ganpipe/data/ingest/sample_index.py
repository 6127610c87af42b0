"""An index of all samples, sorted on disk: even a million samples take little memory during ingest."""

from __future__ import annotations

import functools
import itertools
import sqlite3
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ..shards.manifest import Split
from .previous import ImageRange

_IMAGE_RANGE, _LENGTH = "IQI", "I"
_ROWS_HELD = 1024
_CACHE_KIB = 4096
_COLUMNS = "digest, label, contents, lengths, images"


@functools.cache
def _packing(code: str, number: int) -> struct.Struct:
    """So many records, little-endian and without gaps; `code` is a record in the module struct's notation."""
    return struct.Struct("<" + number * code)


class Sample(NamedTuple):
    """A sample, and where its images lie. Samples in a shard are sorted by these attributes, the digest first.

    Attributes:
        digest: identifies the sample's images.
        label: number of its class in the main field with labels; -1 if there are no labels.
        values: the contents of the files of all labels and texts, in the order of the fields.
        images: where the image of each field with pictures lies, in the order of the fields; a single entry for all of
            them if they have to be decoded once more (`ImageStore.missing`).
    """

    digest: bytes
    label: int
    values: tuple[bytes, ...]
    images: tuple[ImageRange, ...]


class SampleIndex:
    """Samples by split: first all are added, then they are read in order.

    They lie in an anonymous file in the folder for temporary files (TMPDIR), which vanishes even if the process is
    killed.

    Raises:
        sqlite3.Error: the disk is full.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("")
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute(
            "CREATE TABLE samples (split TEXT, digest BLOB, label INTEGER, contents BLOB, lengths BLOB, images BLOB, "
            "given INTEGER)"
        )
        self._waiting: list[tuple[str, bytes, int, bytes, bytes, bytes, int]] = []
        self._counts: dict[str, int] = {}

    def add(self, split: Split, sample: Sample, split_is_given: bool = False) -> None:
        """Add a sample.

        Args:
            split_is_given: whether the source chose the split; then `ensure_label_is_trained` does not change it.
        """
        digest, label, values, ranges = sample
        images = _packing(_IMAGE_RANGE, len(ranges)).pack(*itertools.chain.from_iterable(ranges))
        lengths = _packing(_LENGTH, len(values)).pack(*map(len, values))
        row = (split, digest, label, b"".join(values), lengths, images, int(split_is_given))
        self._waiting.append(row)  # sqlite3 takes an int faster than a bool
        self._counts[split] = self.num_samples(split) + 1
        if len(self._waiting) == _ROWS_HELD:
            self._insert()

    def _insert(self) -> None:
        self._database.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)", self._waiting)
        self._waiting.clear()

    def ensure_label_is_trained(self) -> None:
        """Give each label at least one training sample, if it has any sample whose split is not given.

        A label without a training sample gets its validation sample with the smallest digest, with all its copies. To
        be called after the last `add`.
        """
        self._insert()
        missing = (
            "SELECT min(digest) FROM samples WHERE split = 'validation' AND NOT given AND label NOT IN "
            "(SELECT DISTINCT label FROM samples WHERE split = 'train') GROUP BY label"
        )
        moved = self._database.execute(
            f"UPDATE samples SET split = 'train' WHERE split = 'validation' AND NOT given AND digest IN ({missing})"
        ).rowcount
        self._counts["train"] = self.num_samples("train") + moved
        self._counts["validation"] = self.num_samples("validation") - moved

    def sort(self) -> None:
        """Sort the samples; to be called after the last `add` and before the samples are read."""
        self._insert()
        self._database.execute(f"CREATE INDEX ordered ON samples (split, {_COLUMNS})")

    def num_per_label(self, split: Split) -> dict[int, int]:
        """Label -> number of samples in the split; labels without samples are missing."""
        query = "SELECT label, count(*) FROM samples WHERE split = ? GROUP BY label"
        return dict(self._database.execute(query, (split,)))

    def num_samples(self, split: Split) -> int:
        return self._counts.get(split, 0)

    def num_between(self, split: Split, first: bytes, stop: bytes) -> int:
        """Number of samples in the split with digests in [first, stop)."""
        query = "SELECT count(*) FROM samples WHERE split = ? AND digest >= ? AND digest < ?"
        return int(self._database.execute(query, (split, first, stop)).fetchone()[0])

    def in_order(self, split: Split) -> Iterator[Sample]:
        rows = self._database.execute(f"SELECT {_COLUMNS} FROM samples WHERE split = ? ORDER BY {_COLUMNS}", (split,))
        for digest, label, contents, lengths, images in rows:
            values, start = [], 0
            for (length,) in _packing(_LENGTH, 1).iter_unpack(lengths):
                values.append(contents[start : start + length])
                start += length
            yield Sample(digest, label, tuple(values), tuple(_packing(_IMAGE_RANGE, 1).iter_unpack(images)))

    def digests(self) -> Iterator[tuple[bytes, int]]:
        """Every digest, and how many samples have it."""
        yield from self._database.execute("SELECT digest, count(*) FROM samples GROUP BY digest")

    def close(self) -> None:
        self._database.close()
