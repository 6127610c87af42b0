"""Where a command writes its output: one rule for every `--out`, which is checked before any work.

A name with the command's suffix is a file. An existing folder, or a name without suffix, is a folder. Missing folders
are made. An existing file is replaced as a whole, so that it is unchanged after an error.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import GanpipeError

RULE = "missing folders are made, an existing file is replaced"
"""For the help text of `--out`."""


def is_folder(out: Path, suffix: str) -> bool:
    """Whether `out` is a folder, in which the command names the files; else it is a file whose name ends in `suffix`.

    Raises:
        GanpipeError: `out` is neither, or this user cannot write there.
    """
    folder = os.path.isdir(out) or not out.suffix
    if not folder and out.suffix.lower() != suffix:
        raise GanpipeError(f"--out: got {str(out)!r}; expected a name that ends in {suffix}, or a folder")
    try:
        mode = os.stat(out).st_mode
    except FileNotFoundError:
        parent = next(path for path in out.absolute().parents if os.path.isdir(path))
        _require_writable(parent, out)
        return folder
    except OSError as error:  # the parent is a file, the name is too long, or this user may not enter the folder
        raise GanpipeError(f"--out: {out}: {error.strerror}; choose another place") from None
    if folder and not stat.S_ISDIR(mode):
        raise GanpipeError(f"--out: {out} is a file; expected a name that ends in {suffix}, or a folder")
    _require_writable(out, out)
    return folder


def require_folder(out: Path, option: str) -> None:
    """Return if `out` is a folder that this user can write to, or can make.

    Args:
        option: name of the command's option, for error messages.

    Raises:
        GanpipeError: it is not.
    """
    try:
        there = next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))
        is_folder = stat.S_ISDIR(os.stat(there).st_mode)
    except OSError as error:
        raise GanpipeError(f"{option}: {out}: {error.strerror}; choose another place") from None
    if not is_folder:
        raise GanpipeError(f"{option}: {there} is a file; expected a folder")
    _require_writable(there, out, option)


def _require_writable(there: Path, out: Path, option: str = "--out") -> None:
    needed = os.W_OK | os.X_OK if there.is_dir() else os.W_OK
    if not os.access(there, needed):
        raise GanpipeError(f"{option}: {out}: this user may not write to {there}; choose another place")


def write(path: Path, content: bytes) -> None:
    """Write `content` to `path`; after an error, the file is as it was before.

    Raises:
        GanpipeError: the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    scratch = target.with_name(f".ganpipe-{os.getpid()}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        in_place = target.exists() and not target.is_file()  # a device or a pipe
        if in_place or not os.access(target.parent, os.W_OK):  # no temporary file can be made in this folder
            target.write_bytes(content)
            return
        try:
            scratch.write_bytes(content)
            os.replace(scratch, target)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise GanpipeError(f"{path}: cannot be written: {error.strerror}") from None
