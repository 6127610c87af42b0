"""Files in a folder that DVC watches and cannot read. DVC's own errors do not name them, so they are found before.

This module imports the standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .errors import GanpipeError

_MAX_SHOWN = 3


def require_readable_by_dvc(folders: Iterable[Path], is_ignored: Callable[[str], bool]) -> None:
    """Require that DVC can read every file in these folders.

    Args:
        is_ignored: whether .dvcignore names a path; called only for files that DVC cannot read.

    Raises:
        GanpipeError: DVC cannot read some; names the first ones, what is wrong with the first, and what to do.
    """
    for folder in dict.fromkeys(folders):
        found = [(path, *what) for path, *what in _problems_in(str(folder)) if not is_ignored(os.path.abspath(path))]
        if found:
            (path, reason, remedy), others = found[0], [_shown(path) for path, *_ in found[1:]]
            more = f" (so do {', '.join([*others[:_MAX_SHOWN], *(['...'] if others[_MAX_SHOWN:] else [])])})"
            raise GanpipeError(
                f"{_shown(path)}: {reason}. DVC watches {folder} and stops at it{more if others else ''}: {remedy}, or "
                "name it in .dvcignore"
            )


def _shown(path: str) -> str:
    """The path as one line of text; bytes that are not UTF-8 and control characters are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _problems_in(folder: str) -> Iterator[tuple[str, str, str]]:
    """(path, what is wrong, remedy) of each file that DVC cannot read. Links to folders are not followed, as in DVC."""
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except PermissionError:
        yield folder, "this user may not list it", "give the permission (chmod u+rx)"
        return
    except (FileNotFoundError, NotADirectoryError):  # the code that needs the folder reports that it is missing
        return
    for entry in ordered:
        if what := _problem_of(entry):
            yield entry.path, *what
        elif entry.is_dir(follow_symlinks=False):
            yield from _problems_in(entry.path)


def _problem_of(entry: os.DirEntry[str]) -> tuple[str, str] | None:
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
        return f"its type cannot be read ({error.strerror})", "remove it"
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return "neither a file nor a folder (a pipe, socket or device)", "remove it"
    if stat.S_ISREG(mode) and not os.access(entry.path, os.R_OK):
        return "this user may not read it", "give the permission (chmod u+r)"
    return None
