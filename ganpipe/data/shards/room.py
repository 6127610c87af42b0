"""The folder in a host's cache for fetched shards, which holds a bounded number of bytes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from ..access.host_cache import cache_limit
from .manifest import Shard

STORE = "shards"
"""Folder in the host's cache for fetched shards, each as `<sha256>/<name>`."""
_RESERVED = ".reserved"
"""A file without content, of the size of the shard that is being fetched into its folder."""


class Room:
    """Fetched shards, at most `limit` bytes of them: the one that was opened longest ago goes first."""

    def __init__(self, cache_root: Path) -> None:
        self.folder = cache_root / STORE
        self.limit, self.why = cache_limit(self.folder)

    def holding(self, shard: Shard, fetch: Callable[[Path, Callable[[], None]], None], kept: frozenset[str]) -> Path:
        """The folder with this shard.

        Args:
            fetch: (the shard's folder, make room) -> brings the shard there if it is not there.
            kept: contents that may not be removed to make room.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = self.folder / shard.sha256
        with FileLock(self._lock_of(shard.sha256)):
            fetch(folder, lambda: self._make(shard, kept))
            with contextlib.suppress(OSError):  # `ganpipe clean` removed it
                (folder / _RESERVED).unlink(missing_ok=True)
                os.utime(folder)
        return folder

    def _lock_of(self, sha256: str) -> Path:
        """Of whoever fetches this shard. Many shards have the same, because the files of locks stay."""
        return self.folder / f".{sha256[:2]}.lock"

    def _make(self, shard: Shard, kept: frozenset[str]) -> None:
        """Remove shards until there is room for another, and reserve that room. A process that has a removed shard open
        can still read it."""
        with FileLock(self.folder / ".room.lock"):
            there = []
            for folder in self.folder.iterdir():
                with contextlib.suppress(OSError):  # removed meanwhile
                    if folder.is_dir() and folder.name != shard.sha256:
                        there.append((folder.stat().st_mtime_ns, folder, _bytes_of(folder)))
            total = shard.num_bytes + sum(num_bytes for _, _, num_bytes in there)
            for _, folder, num_bytes in sorted(there):
                if total <= self.limit:
                    break
                if folder.name not in kept and self._remove(folder):
                    total -= num_bytes
            reserved = self.folder / shard.sha256 / _RESERVED
            reserved.parent.mkdir(exist_ok=True)
            reserved.touch()
            os.truncate(reserved, shard.num_bytes)

    def _remove(self, folder: Path) -> bool:
        """Whether it could be removed: nobody is fetching it."""
        try:
            with FileLock(self._lock_of(folder.name), timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
                return True
        except Timeout:
            return False


def _bytes_of(folder: Path) -> int:
    """Of a shard that lies there, or is to lie there soon."""
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    return max(sizes.pop(_RESERVED, 0), sum(sizes.values()))
