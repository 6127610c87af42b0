"""Writing to storage that may refuse or damage what it is sent: read back, compared, and written again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ..errors import UnavailableError

WAITS_SECONDS = (1.0, 3.0, 9.0)
"""Before the second try and each later one."""


def write_checked(filesystem: Any, path: str, content: bytes) -> None:
    """Write `content` to `path` (a path of fsspec), and read it back to compare.

    A local file is not read back, because its content would come from this machine's memory.

    Raises:
        UnavailableError: in every try, the storage refused the file or returned other bytes.
    """

    def write() -> str:
        filesystem.pipe_file(path, content)
        if isinstance(filesystem, LocalFileSystem):
            return ""
        filesystem.invalidate_cache()
        received = filesystem.cat_file(path)
        if received == content:
            return ""
        return (
            f"it has {len(received):,} bytes of SHA-256 {hashlib.sha256(received).hexdigest()[:12]} instead of "
            f"{len(content):,} of {hashlib.sha256(content).hexdigest()[:12]}"
        )

    _retry(write, filesystem.unstrip_protocol(path))


def move_checked(filesystem: Any, source: str, target: str) -> None:
    """Move a file that `write_checked` wrote; it counts, too, if an earlier try moved the file without an answer.

    Raises:
        UnavailableError: the storage refused in every try.
    """
    tried = False

    def move() -> str:
        nonlocal tried
        filesystem.invalidate_cache()
        if not (tried and filesystem.exists(target) and not filesystem.exists(source)):
            tried = True
            filesystem.mv(source, target)
        return ""

    _retry(move, filesystem.unstrip_protocol(target))


def _retry(action: Callable[[], str], url: str) -> None:
    """Call `action` until it succeeds: it returns what is wrong, or an empty text, or raises an error of any kind."""
    for wait_seconds in (*WAITS_SECONDS, None):
        try:
            wrong = action()
        except Exception as error:  # each storage has errors of its own kinds
            wrong = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:300]
        if not wrong:
            return
        if wait_seconds is None:
            raise UnavailableError(
                f"{url}: the storage did not keep what was written in {len(WAITS_SECONDS) + 1} tries: {wrong}; check "
                "cluster.storage_path and its store, then run the same command again: it goes on from the last "
                "checkpoint"
            )
        print(f"{url}: not stored ({wrong}); trying again in {wait_seconds:g} s", flush=True)
        time.sleep(wait_seconds)
