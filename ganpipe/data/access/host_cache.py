"""The folder for files that can be made again: downloads, decoded images, reference features for the quick FID."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import GanpipeError


def host_cache() -> Path:
    """`$GANPIPE_CACHE`, else `$XDG_CACHE_HOME/ganpipe`, else `~/.cache/ganpipe`. The folder is not created here.

    Raises:
        GanpipeError: neither variable is set, and this user has no home folder.
    """
    if chosen := os.environ.get("GANPIPE_CACHE"):
        return Path(chosen).expanduser().absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser().absolute() / "ganpipe"
    try:
        return Path.home() / ".cache" / "ganpipe"
    except RuntimeError:
        raise GanpipeError(
            "this user has no home: set HOME, or GANPIPE_CACHE, to a folder that you may write to"
        ) from None
