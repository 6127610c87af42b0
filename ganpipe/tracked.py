"""What DVC stops at in a folder that it watches, without a word on which file or why: found and named before.

Nothing here imports more than the standard library.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .errors import GanpipeError

_MAX_SHOWN = 3


def require_fit(folders: Iterable[Path], is_ignored: Callable[[str], bool]) -> None:
    """Nothing in these folders stops DVC.

    Args:
        is_ignored: whether .dvcignore names a path; asked for what would stop DVC only.

    Raises:
        GanpipeError: naming the first files, what is wrong with the first, and what to do.
    """
    for folder in dict.fromkeys(folders):
        found = [(path, *what) for path, *what in _unfit(str(folder)) if not is_ignored(os.path.abspath(path))]
        if found:
            (path, reason, remedy), others = found[0], [_shown(path) for path, *_ in found[1:]]
            more = f" (so do {', '.join([*others[:_MAX_SHOWN], *(['...'] if others[_MAX_SHOWN:] else [])])})"
            raise GanpipeError(
                f"{_shown(path)}: {reason}. DVC watches {folder} and stops at it{more if others else ''}: {remedy}, or "
                "name it in .dvcignore"
            )


def _shown(path: str) -> str:
    """On one line, bytes that are not UTF-8 escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _unfit(folder: str) -> Iterator[tuple[str, str, str]]:
    """Path, what is wrong, and its remedy. As DVC does, links to folders are not followed."""
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except PermissionError:
        yield folder, "this user may not list it", "give the permission (chmod u+rx)"
        return
    except (FileNotFoundError, NotADirectoryError):  # what is missing is said by who needs it
        return
    for entry in ordered:
        if what := _fault(entry):
            yield entry.path, *what
        elif entry.is_dir(follow_symlinks=False):
            yield from _unfit(entry.path)


def _fault(entry: os.DirEntry[str]) -> tuple[str, str] | None:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8", "rename it (convmv -f latin1 -t utf8 --notest, or by hand)"
    try:
        mode = entry.stat().st_mode if entry.is_symlink() or not entry.is_dir() else stat.S_IFDIR
    except OSError as error:
        if error.errno == errno.ENOENT:
            return f"a link to {_shown(os.readlink(entry.path))}, which is not there", "mend or remove it"
        if error.errno == errno.ELOOP:
            return "a link to itself", "remove it"
        return f"it cannot be looked at ({error.strerror})", "remove it"
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return "neither a file nor a folder (a pipe, socket or device)", "remove it"
    if stat.S_ISREG(mode) and not os.access(entry.path, os.R_OK):
        return "this user may not read it", "give the permission (chmod u+r)"
    return None
