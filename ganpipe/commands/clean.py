"""clean: lists and removes the leftovers of interrupted runs and this host's cache; no outputs, models or DVC cache."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import time
from collections.abc import Iterator, Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from .. import environment, processes
from ..data.access.host_cache import host_cache
from ..data.shards.room import STORE
from ..stages.work import WORK

WORKSPACES = Path(".ganpipe/workspaces")
DAY = 86400.0


@dataclass(frozen=True)
class Leftover:
    """A folder that can be removed, because everything in it is made again when it is needed.

    Attributes:
        what: its kind, for people.
        idle_days: days since a file in it was written or read.
        shared: the folder belongs to the host's cache, and other checkouts may need it.
    """

    path: Path
    what: str
    num_bytes: int
    idle_days: float
    shared: bool


def main(argv: list[str]) -> int:
    options = _arguments(argv)
    found = [item for item in leftovers(environment.repo_root()) if item.idle_days >= options.days]
    chosen = [item for item in found if options.cache or not item.shared] if options.yes else []
    in_use = processes.files_in_use() if chosen else set()
    removed = []
    for item in found:
        print(f"{item.num_bytes / 1e6:10.1f} MB  idle {item.idle_days:5.1f} days  {item.what}: {item.path}")
        if item in chosen and _remove(item.path, in_use):
            removed.append(item)
        elif item in chosen:
            print(f"{'':10} in use, so it stays: {item.path}")
    if not found:
        print(f"nothing has been idle for {options.days:g} days")
    elif options.yes:
        print(f"removed {_total(removed)}")
    else:
        print(f"{_total(found)}; nothing was removed: `ganpipe clean --yes` removes what is this checkout's")
    shared = [item for item in found if item.shared]
    if shared and not options.cache:
        print(
            f"{_total(shared)} of these are the cache of this host, for all its checkouts: `ganpipe clean --cache "
            "--yes` removes them, too, and every checkout that needs them has to fetch or decode again"
        )
    return 0


def _total(items: list[Leftover]) -> str:
    return f"{len(items)} folders, {sum(item.num_bytes for item in items) / 1e6:.1f} MB"


def _remove(folder: Path, in_use: Set[str]) -> bool:
    """Remove `folder` unless a process uses it: one that has a file in it open, or holds its lock. The lock is beside
    the folder, or in it, if files are fetched to the folder.

    Returns:
        Whether it was removed.
    """
    if any(Path(name).is_relative_to(folder) for name in in_use):
        return False
    locks = [folder.with_name(f"{folder.name}.lock"), *folder.glob(".lock")]
    try:
        with ExitStack() as held:
            for lock in locks:
                held.enter_context(FileLock(lock, timeout=0))
            shutil.rmtree(folder, onerror=_unless_gone)
    except Timeout:
        return False
    return True


def leftovers(root: Path) -> Iterator[Leftover]:
    """Work of stages that were interrupted and not continued, workspaces of failed runs, and cached data."""
    for parent, what, shared in (
        (environment.home(root) / WORK, "interrupted work", False),
        (root / WORKSPACES, "workspace of a failed run", False),
        (host_cache() / "decoded", "decoded images", True),
        (host_cache() / "reference", "features for quick FID", True),
        (host_cache() / "mnist", "downloaded data", True),
        (host_cache() / STORE, "fetched shards", True),
    ):
        folders = [parent] if what in ("downloaded data", "fetched shards") else sorted(parent.glob("*/"))
        for folder in folders:
            files = list(_files_in(folder))
            if files:
                newest = max(max(stat.st_mtime, stat.st_atime) for stat in files)
                size = sum(stat.st_size for stat in files)
                yield Leftover(folder, what, size, max(0.0, time.time() - newest) / DAY, shared)


def _unless_gone(remove: object, path: str, error: tuple[type[BaseException], BaseException, TracebackType]) -> None:
    """For `shutil.rmtree`: what another process removed meanwhile is no error."""
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]


def _files_in(folder: Path) -> Iterator[os.stat_result]:
    """Passes over what another process removes meanwhile: a stage that ends, a training that makes room for shards."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                yield os.lstat(Path(parent, name))


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ganpipe clean",
        description=__doc__,
        epilog="The cache of a host serves all its checkouts, so it is listed, and removed only with --cache. What a "
        "process has open or locked stays in any case.",
    )
    parser.add_argument("--days", type=_days, default=14.0, help="only what has been idle so long; default 14")
    parser.add_argument("--cache", action="store_true", help="with --yes: remove also what is in the host's cache")
    parser.add_argument("--yes", action="store_true", help="remove it; without this it is only listed")
    return parser.parse_args(argv)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 <= days < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a number of days, 0 or more")
    return days
