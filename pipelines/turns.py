"""One run at a time in a checkout: a second one waits, and names the run or DVC command that it waits for."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from ganpipe import processes
from ganpipe.errors import GanpipeError
from ganpipe.redaction import redact

LOCK = Path(".ganpipe") / "run.lock"
"""Held by the run that is at work in the checkout; the system releases it when its holder ends, however it ends."""
HOLDER = LOCK.with_suffix(".json")
"""Which run holds the lock: for the message of runs that wait. Only the lock itself decides."""
LOOK_EVERY_SECONDS = 0.5
DVC_LOCK = Path(".dvc") / "tmp" / "lock"
"""Held by a DVC command except while a stage's own command runs; its process number stands in it."""
DVC_FILES_IN_USE = Path(".dvc") / "tmp" / "rwlock"
"""Which DVC command reads or writes which dependencies and outputs, by process number."""

LOCK_IS_MOMENTARY_SECONDS = 2.0
"""DVC commands that run side by side hold the lock for less than this; a command that holds it longer is named."""

_DVC_BUSY = re.compile(r"is busy, it is being blocked by:|Unable to acquire lock\. Most likely another DVC process")
_DVC_BLOCKER = re.compile(r"^ *\(PID (\d+)\): (.*)$", re.MULTILINE)
_DVC_ADVICE = "If there are no processes with such PIDs, you can manually remove"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Holder:
    """A process that is at work in the checkout."""

    pid: int
    command: str

    def __str__(self) -> str:
        try:
            since = datetime.fromtimestamp(processes.start_time(self.pid)).strftime("%Y-%m-%d %H:%M:%S")
        except psutil.NoSuchProcess:
            return f"`{self.command}` (process {self.pid}, which has just ended)"
        return f"`{self.command}` (process {self.pid}, since {since})"


@contextmanager
def one_at_a_time(root: Path, command: str, say: Say) -> Iterator[None]:
    """Within this block no other run is at work in the checkout `root`; waits for another run to end, and names it.

    A process that has the checkout already does not wait: `make run` runs its flow in its own process.

    Args:
        command: what other runs call this one while they wait.
        say: takes the line that names the other run.
    """
    path = root / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, is_singleton=True, thread_local=False)
    _acquire(lock, root, say)
    try:
        if lock.lock_counter == 1:
            _note_holder(root, command)
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, root: Path, say: Say) -> None:
    told: Holder | None = None
    waited = 0
    while True:
        try:
            lock.acquire(timeout=0)
            return
        except Timeout:
            holder = _holder(root)
        if holder is not None and holder != told:
            say(f"waiting for {holder}: one run at a time is at work in a checkout")
            told = holder
        elif holder is None and waited == 10:
            # The holder could not write its note, for example because the disk is full.
            say("waiting for another run: one run at a time is at work in a checkout")
        waited += 1
        time.sleep(LOOK_EVERY_SECONDS)


def _note_holder(root: Path, command: str) -> None:
    note = {"pid": os.getpid(), "started": processes.start_time(os.getpid()), "command": command}
    scratch = root / HOLDER.with_suffix(".json.new")
    scratch.write_text(json.dumps(note) + "\n", encoding="utf-8")
    os.replace(scratch, root / HOLDER)


def _holder(root: Path) -> Holder | None:
    """The run in the note, if its process still lives: a note outlives its run."""
    note = _read(root / HOLDER)
    try:
        pid, started, command = int(note["pid"]), float(note["started"]), str(note["command"])
    except (KeyError, TypeError, ValueError):
        return None
    return Holder(pid, command) if processes.is_alive(pid, started) else None


def is_dvc_busy(line: str) -> bool:
    """Whether the line is part of DVC's message that another DVC command is at work. DVC then advises to delete a file
    that the other command uses."""
    return bool(_DVC_BUSY.search(line) or _DVC_BLOCKER.match(line)) or line.startswith(_DVC_ADVICE)


class OtherDvcCommands:
    """The DVC commands of others in the checkout `root`: waited for, and each named once.

    Args:
        wanted: tells whether to go on waiting.
    """

    def __init__(self, root: Path, say: Say, wanted: Callable[[], bool] = lambda: True) -> None:
        self._root = root
        self._say = say
        self._wanted = wanted
        self._told: set[str] = set()

    def wait_for_lock(self) -> bool:
        """Wait until DVC's lock is free, because DVC would wait silently. False where waiting is no longer wanted."""
        began = time.monotonic()
        while self._wanted():
            if not _is_locked(self._root / DVC_LOCK):
                return True
            if time.monotonic() - began > LOCK_IS_MOMENTARY_SECONDS:
                self._tell(self._lock_holder())
            time.sleep(LOOK_EVERY_SECONDS)
        return False

    def wait_if_busy(self, said: str) -> bool:
        """If DVC's message `said` means that another DVC command is at work, wait for that command.

        Returns:
            Whether it means that, and another try makes sense now.

        Raises:
            GanpipeError: DVC waits for a process that is no DVC command.
        """
        if not _DVC_BUSY.search(said):
            return False
        blockers = [Holder(int(pid), _short(command)) for pid, command in _DVC_BLOCKER.findall(said)]
        if not blockers:
            self._tell(self._lock_holder())
            time.sleep(LOOK_EVERY_SECONDS)
        for blocker in blockers:
            self._refuse_other_program(blocker)
            self._tell(blocker)
        while self._wanted() and self._in_use_by({blocker.pid for blocker in blockers}):
            time.sleep(LOOK_EVERY_SECONDS)
        return self._wanted()

    def _tell(self, holder: Holder | None) -> None:
        whom = str(holder) if holder is not None else "another DVC command"
        if whom not in self._told:
            self._told.add(whom)
            self._say(f"waiting for {whom}, which is at work in this checkout")

    def _lock_holder(self) -> Holder | None:
        """Who has DVC's lock; None where the lock does not say (DVC's setting `hardlink_lock`) or it was let go."""
        try:
            pid = int((self._root / DVC_LOCK).read_text(encoding="utf-8"))
            words = psutil.Process(pid).cmdline()
        except (OSError, ValueError, psutil.Error):
            return None
        named = next((number for number, word in enumerate(words) if Path(word).name == "dvc"), 0)
        return Holder(pid, _short(" ".join(words[named:])))

    def _in_use_by(self, pids: set[int]) -> bool:
        note = _read(self._root / DVC_FILES_IN_USE)
        writers = note.get("write", {}).values()
        readers = [entry for entries in note.get("read", {}).values() for entry in entries]
        using = {entry["pid"] for entry in [*writers, *readers]}
        return any(processes.is_alive(pid) for pid in using & pids)

    def _refuse_other_program(self, holder: Holder) -> None:
        """Raise where another program has the process number of a killed DVC command: DVC would wait for it forever."""
        arguments = holder.command.split()[1:]
        try:
            words = " ".join(psutil.Process(holder.pid).cmdline()).split()
        except psutil.Error:  # it has ended, or belongs to another user
            return
        if arguments and words and words[-len(arguments) :] != arguments:
            raise GanpipeError(
                f"{DVC_FILES_IN_USE}: names process {holder.pid} as `{holder.command}`, but that process is "
                f"`{_first_words(words)}`: the DVC command was killed; delete {DVC_FILES_IN_USE} and run this again"
            )


def _is_locked(path: Path) -> bool:
    """Whether a process has the lock on the file, as DVC takes it."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is none, or where another process is just writing it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(command: str) -> str:
    """`dvc repro x` for `/some/where/bin/dvc repro x` or `/some/where/dvc/__main__.py repro x`."""
    program, _, arguments = command.partition(" ")
    name = Path(program).parent.name if Path(program).name == "__main__.py" else Path(program).name
    return redact(f"{name} {arguments}".strip())


def _first_words(words: Sequence[str]) -> str:
    text = redact(" ".join([Path(words[0]).name, *words[1:]]))
    return text if len(text) <= 80 else f"{text[:80]}..."
