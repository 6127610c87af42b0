"""A split of a dataset, wherever its samples are read from.

Legend: P requested rows, N samples, S shards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from ..shards.manifest import Manifest


class Dataset(ABC):
    """A split. It is opened in the process that reads it and cannot be pickled, which would copy its content."""

    def __init__(self, manifest: Manifest, split: str) -> None:
        self.manifest, self.split = manifest, split
        self.shards = manifest.shards_of(split)
        self.shard_sizes_S = np.array([shard.num_samples for shard in self.shards], np.int64)
        self._num_samples = int(self.shard_sizes_S.sum())

    def __len__(self) -> int:
        return self._num_samples

    def sizes_within(self, members_N: np.ndarray) -> np.ndarray:
        """How many of these samples each shard has, (S,)."""
        which_N = np.searchsorted(np.cumsum(self.shard_sizes_S), members_N, side="right")
        return np.bincount(which_N, minlength=len(self.shards))

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
            GanpipeError: a shard is missing or damaged.
            UnavailableError: the storage of the shards does not answer.
        """
        indices_P = np.asarray(indices, dtype=np.int64)
        if indices_P.size and not (indices_P.min() >= 0 and indices_P.max() < len(self)):
            raise IndexError(f"indices from {indices_P.min()} to {indices_P.max()} in a split of {len(self)} samples")
        return self._read(indices_P, [name for name in self.fields if fields is None or name in fields])

    def require_window(self, window: int | None, num_orders: int = 1, num_read: int | None = None) -> None:
        """Return if this host can hold two windows of so many shards (all when None), the present and the next, for
        each of so many orders of samples.

        Args:
            num_read: how many of the shards this host reads in an epoch; all when None.

        Raises:
            GanpipeError: it cannot; says how many it can.
        """
        return

    def expect(self, who: str, now: Sequence[int], later: Sequence[int]) -> None:
        """Have these shards here, and fetch others ahead of their need.

        Args:
            who: which order of samples asks; what it expected before is let go.
            now: numbers of the shards that are waited for.
            later: numbers of those that will be needed after them.

        Raises:
            GanpipeError, UnavailableError: as `rows`, for a shard of `now`.
        """
        return

    def close(self) -> None:
        """Let the shards go that are open."""
        return

    @abstractmethod
    def _read(self, indices_P: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The rows of these fields."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Dataset is opened in each process with open_dataset(); it is not sent between them")
