"""The folder for files that can be made again: downloads, decoded images, reference features for the quick FID."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ...errors import GanpipeError

BYTES_VARIABLE = "GANPIPE_CACHE_BYTES"
_SHARE_OF_FREE = 0.8
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def cache_limit(folder: Path) -> tuple[int, str]:
    """The most bytes that a decoded split, or the shards of a stream, may take in the cache `folder`; and a clause that
    says where this number comes from: `$GANPIPE_CACHE_BYTES` (a whole number, or such as 200G), else 80 % of the free
    disk.

    Raises:
        GanpipeError: the variable is no number of bytes.
    """
    if chosen := os.environ.get(BYTES_VARIABLE):
        number, unit = (chosen[:-1], chosen[-1].upper()) if chosen[-1].isalpha() else (chosen, "")
        if not number.isdecimal() or unit not in _UNITS:
            raise GanpipeError(f"{BYTES_VARIABLE}: got {chosen!r}; expected bytes such as 500000000, 200G or 2T")
        return int(number) << _UNITS[unit], f"{BYTES_VARIABLE} is {chosen}"
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    return int(free * _SHARE_OF_FREE), f"{_SHARE_OF_FREE:.0%} of the {free / 2**30:,.1f} GiB free at {folder}"


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
