"""clean: what interrupted runs and this host's cache still hold, and its removal. No output, no model, no DVC cache."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from .. import environment
from ..data.places import host_cache
from ..data.shard_set import STORE
from ..stages.work import WORK

WORKSPACES = Path(".ganpipe/workspaces")
DAY = 86400.0


@dataclass(frozen=True)
class Leftover:
    """A folder that can go: everything in it is made again when it is needed.

    Attributes:
        idle_days: since anything in it was written or, in the host's cache, read.
    """

    path: Path
    what: str
    num_bytes: int
    idle_days: float


def main(argv: list[str]) -> int:
    options = _arguments(argv)
    found = [item for item in leftovers(environment.repo_root()) if item.idle_days >= options.days]
    removed = []
    for item in found:
        print(f"{item.num_bytes / 1e6:10.1f} MB  idle {item.idle_days:5.1f} days  {item.what}: {item.path}")
        if options.yes and _remove(item.path):
            removed.append(item)
        elif options.yes:
            print(f"{'':10} in use, so it stays: {item.path}")
    total = sum(item.num_bytes for item in found) / 1e6
    if not found:
        print(f"nothing has been idle for {options.days:g} days")
    elif options.yes:
        print(f"removed {len(removed)} folders, {sum(item.num_bytes for item in removed) / 1e6:.1f} MB")
    else:
        print(f"{len(found)} folders, {total:.1f} MB; nothing was removed: `ganpipe clean --yes` removes them")
    return 0


def _remove(folder: Path) -> bool:
    """Remove `folder` unless a process holds `<folder>.lock`, as all that works in these places does."""
    try:
        with FileLock(folder.with_name(f"{folder.name}.lock"), timeout=0):
            shutil.rmtree(folder)
    except Timeout:
        return False
    return True


def leftovers(root: Path) -> Iterator[Leftover]:
    """Work of stages that were interrupted and not taken up again, workspaces of failed runs, and cached data."""
    for parent, what in (
        (environment.home(root) / WORK, "interrupted work"),
        (root / WORKSPACES, "workspace of a failed run"),
        (host_cache() / "decoded", "decoded images"),
        (host_cache() / "reference", "features for quick FID"),
        (host_cache() / "mnist", "downloaded data"),
        (host_cache() / STORE, "fetched shards"),
    ):
        folders = [parent] if what in ("downloaded data", "fetched shards") else sorted(parent.glob("*/"))
        for folder in folders:
            files = [path.lstat() for path in folder.rglob("*") if path.is_file()]
            if files:
                newest = max(max(stat.st_mtime, stat.st_atime) for stat in files)
                size = sum(stat.st_size for stat in files)
                yield Leftover(folder, what, size, max(0.0, time.time() - newest) / DAY)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ganpipe clean", description=__doc__)
    parser.add_argument("--days", type=float, default=14.0, help="only what has been idle so long; default 14")
    parser.add_argument("--yes", action="store_true", help="remove it; without this it is only listed")
    return parser.parse_args(argv)
