"""What a run has recorded and MLflow has not taken yet: in memory, and in a local file that survives a killed process.

Every entry is one line of JSON, written before `append` returns. The file is emptied when everything has been sent,
and removed when the run is closed. A process holds a lock on its file. A file without a lock was left by a process that
died or gave up, and the next process that writes to the same run adopts it. If MLflow has not made the run yet, the
first line describes the run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

Entry = dict[str, Any]
_SUFFIX = ".jsonl"
ABOUT = "about"
"""Kind of the first line of a file whose run MLflow may not have yet."""


class Spool:
    """A queue of entries that is also kept in a file. Several threads may append; one thread sends and removes."""

    def __init__(self, directory: Path, run_id: str, description: Entry | None = None) -> None:
        """Open a spool of the run, and adopt what earlier processes left.

        Args:
            directory: created if missing; if that fails (for a worker on another host), a temporary folder is used.
            run_id: the run's id in MLflow, or another name if `description` is given.
            description: description of a run that MLflow may not have yet, so that another process can send what is
                left.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            directory = Path(tempfile.gettempdir()) / "ganpipe-tracking"
            directory.mkdir(exist_ok=True)
        name = f"{run_id}.{uuid.uuid4().hex[:12]}"
        self.path = directory / f"{name}{_SUFFIX}"
        self.rejected_path = directory / f"{run_id}.rejected"
        self._lock_path = directory / f"{run_id}.turn"
        self._files = directory / f"{name}.files"
        self._first_line = "" if description is None else json.dumps({"kind": ABOUT, **description}) + "\n"
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque()
        self._num_files = 0
        self._file = self.path.open("w")
        self.path.chmod(0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._reset_file()
        self._run_id = run_id
        self.adopt()

    def _reset_file(self) -> None:
        """Empty the file, except for its first line."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(self._first_line)
        self._file.flush()

    def adopt(self) -> int:
        """Take over the entries of this run that other processes left. Returns how many there were."""
        before = len(self)
        for leftover in spool_files(self.path.parent, self._run_id):
            if leftover != self.path:
                self._adopt(leftover)
        return len(self) - before

    def _adopt(self, path: Path) -> None:
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # the process that writes to it is alive
            for entry in read_entries(file):
                if entry["kind"] == ABOUT:
                    continue
                # Relative to the spool, which may have been moved with its checkout since; see `_keep_file`.
                kept = Path(*Path(entry["file"]).parts[-2:]) if "file" in entry else None
                source = None if kept is None else path.with_suffix(".files") / kept
                if source is None or source.is_file():  # else the file has been sent and removed
                    self.append(entry, source)
            path.unlink(missing_ok=True)
            shutil.rmtree(path.with_suffix(".files"), ignore_errors=True)

    def _keep_file(self, source: Path) -> str:
        with self._lock:
            self._num_files += 1
            target = self._files / str(self._num_files) / source.name
        target.parent.mkdir(parents=True)
        shutil.copyfile(source, target)
        return str(target)

    def append(self, entry: Entry, file: Path | None = None) -> None:
        """Record an entry. `file` is copied first, so that the caller may remove it; entry["file"] is the copy's
        path."""
        if file is not None:
            entry = {**entry, "file": self._keep_file(file)}
        with self._lock:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
            self._entries.append(entry)

    @contextlib.contextmanager
    def sending_lock(self) -> Iterator[None]:
        """Within this block no other process of this host sends entries of this run."""
        while True:
            with self._lock_path.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, even if the process is killed
                if _is_current_file(file, self._lock_path):  # else the last holder removed the file meanwhile
                    yield
                    return

    def __len__(self) -> int:
        return len(self._entries)

    def first(self, num_entries: int) -> list[Entry]:
        """Up to `num_entries` of the oldest entries. They stay in the spool."""
        with self._lock:
            return [self._entries[index] for index in range(min(num_entries, len(self._entries)))]

    def remove(self, num_entries: int) -> None:
        """Remove the oldest entries, because they have been sent."""
        with self._lock:
            removed = [self._entries.popleft() for _ in range(num_entries)]
            if not self._entries:
                self._reset_file()
        for entry in removed:
            if "file" in entry:
                shutil.rmtree(Path(entry["file"]).parent, ignore_errors=True)

    def reject(self, num_entries: int, reason: str) -> None:
        """Remove the oldest entries, which MLflow will never accept, and keep them with the reason in a file for
        people."""
        with self.rejected_path.open("a") as file:
            for entry in self.first(num_entries):
                file.write(json.dumps({**entry, "rejected": reason}) + "\n")
        self.remove(num_entries)

    def close(self) -> None:
        """Close the file; it is removed if no entries are left."""
        with self._lock:
            if not self._entries:
                self.path.unlink(missing_ok=True)
                shutil.rmtree(self._files, ignore_errors=True)
            self._file.close()
        with self.sending_lock():
            self._lock_path.unlink()


def _is_current_file(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def read_entries(file: IO[str]) -> Iterator[Entry]:
    """The entries of a spool's file. A last line that is incomplete, because its process was killed, is left out."""
    for line in file:
        if line.endswith("\n"):
            yield json.loads(line)


def is_held(path: Path) -> bool:
    """Whether a living process has the spool's file open and locked."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def run_description(path: Path) -> Entry | None:
    """The description of the run in the first line of a spool's file; None if the file is named by the run's id."""
    with path.open() as file:
        first = next(read_entries(file), None)
    if first is None or first["kind"] != ABOUT:
        return None
    return {key: value for key, value in first.items() if key != "kind"}


def spool_files(directory: Path, run_id: str = "*") -> list[Path]:
    """Spool files of the run (of all runs, by default) in `directory`, oldest first."""
    return sorted(directory.glob(f"{run_id}.*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
