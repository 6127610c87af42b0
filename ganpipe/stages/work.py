"""Where a stage keeps its work until its outputs are safe, which one run at a time uses."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock, Timeout

from .. import environment
from ..tracking import lineage
from .storage import require_writable

WORK = Path(".ganpipe/work")
_DONE = ".done.json"


def work_folder(storage_path: str | None, stage: str, key: str) -> str:
    """Where an interrupted stage finds what it needs to go on: a path or URL.

    One run of this checkout at a time uses it: another run with the same work waits here until the first has ended, and
    then finds what it made. Work whose outputs DVC has taken is removed, so that a stage that is forced starts anew.

    Raises:
        GanpipeError: `storage_path` cannot be written.
    """
    if storage_path is not None:
        require_writable(storage_path)
    clear_done()
    work = f"{stage}-{key}"
    _claim(work)
    note = _work_path(f"{work}{_DONE}")
    if note.exists() and _is_taken(_read(note), Path.cwd()):
        _remove(note)
    if storage_path is not None:
        return f"{storage_path.rstrip('/')}/{work}"
    folder = _work_path(work)
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def mark_done(folder: str, outs: Sequence[Path]) -> None:
    """Note that the stage has written its outputs from the work in `folder`, which stays until DVC has taken them.

    A stage that is killed before that runs again, and without this work it would have to do everything again.

    Args:
        outs: some of the output files, relative to the working directory. DVC has taken the outputs when dvc.lock holds
            the digests of these files.
    """
    work = folder.rstrip("/").rsplit("/", 1)[-1]
    # Paths are relative to the checkout, which may be moved or copied: a copy must never remove the other's work.
    note = {
        "folder": None if folder == str(_work_path(work)) else folder,
        "checkout": os.path.relpath(Path.cwd(), environment.home()),
        "outs": {str(path): hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() for path in outs},
    }
    path = _work_path(f"{work}{_DONE}")
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(note, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    scratch.replace(path)


def clear_done() -> None:
    """Remove the work whose outputs DVC has taken, and that of checkouts that are gone."""
    for path in sorted(_work_path("").glob(f"*{_DONE}")):
        note = _read(path)
        checkout = environment.home() / note["checkout"]
        if checkout.is_dir() and not _is_taken(note, checkout):
            continue
        lock = FileLock(_work_path(f"{path.name.removesuffix(_DONE)}.lock"))
        try:
            with lock.acquire(timeout=0):
                _remove(path)
        except Timeout:
            print(f"{_folder(path)}: kept, because another run is using it", flush=True)


def _is_taken(note: dict[str, Any], checkout: Path) -> bool:
    """Whether the dvc.lock of `checkout` has the outputs that were made from this work."""
    locked = lineage.dvc_tags(checkout, [Path(name) for name in note["outs"]])
    return all(locked.get(f"dvc.{name}") == md5 for name, md5 in note["outs"].items())


def _read(path: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return note


def _folder(path: Path) -> str:
    """Where the work lies that the note in `path` is about."""
    return str(_read(path)["folder"] or _work_path(path.name.removesuffix(_DONE)))


def _remove(path: Path) -> None:
    """Delete the work that the note in `path` is about, then the note."""
    url = _folder(path)
    try:
        filesystem, folder = fsspec.core.url_to_fs(url)
        if filesystem.exists(folder):
            filesystem.rm(folder, recursive=True)
    except Exception as error:  # storage that does not answer is no error of the stage that tidies up
        print(f"{url}: cannot be removed now ({error}); the next run tries again", flush=True)
        return
    path.unlink(missing_ok=True)


def _claim(work: str) -> None:
    """Hold the work's lock until this process ends, however it ends."""
    path = _work_path(f"{work}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _claims.setdefault(str(path), FileLock(path))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another run is at the same work ({work}); waiting for it to end", flush=True)
        lock.acquire()


_claims: dict[str, FileLock] = {}


def _work_path(name: str) -> Path:
    return environment.home() / WORK / name
