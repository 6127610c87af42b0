"""Starting and ending process trees: politely first, and with all that they started.

As a script it keeps a command on a leash (see `leashed`), so it imports nothing of ganpipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

EXIT_TERMINATED = 128 + signal.SIGTERM
"""What a process returns that ended by itself after SIGTERM, as shells call it."""


def is_alive(pid: int, started: float | None = None) -> bool:
    """Whether process `pid` runs, and is the one that started at `started` (seconds since the epoch) if given.

    A zombie is dead: in a container without an init nobody buries it. The start time tells a process from a later
    one that got the same number.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return started is None or abs(process.create_time() - started) < 2.0
    except psutil.NoSuchProcess:
        return False


def start_time(pid: int) -> float:
    """When `pid` was started, in seconds since the epoch."""
    return float(psutil.Process(pid).create_time())


def runs_in_other_folder(pid: int, folder: Path) -> bool:
    """Whether `pid` runs and its working directory is another than `folder`."""
    try:
        return is_alive(pid) and Path(psutil.Process(pid).cwd()) != folder
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # of another user, as no service of this checkout is
        return True


SERVICE = "GANPIPE_SERVICE"
"""Stands in the environment of a background service and of all that it starts: it outlives who started it."""


def tree(pid: int) -> list[psutil.Process]:
    """The process and all its descendants; empty where it is gone.

    A service that one of them started is shared by others and is no part of it, except where `pid` is the service.
    """
    try:
        root = psutil.Process(pid)
        members = root.children(recursive=True)
        return [root, *(members if _is_service(root) else [one for one in members if not _is_service(one)])]
    except psutil.NoSuchProcess:
        return []


def _is_service(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return SERVICE in process.environ()
    return False


def listens(pid: int, port: int) -> bool:
    """Whether the process, or one that it started, listens on this TCP port."""
    try:
        leader = psutil.Process(pid)
        members = [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return False
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in member.net_connections("tcp")):
                return True
    return False


def group(leader: int) -> list[psutil.Process]:
    """The processes of the group that `leader` led, whether or not it still runs."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == leader:
                found.append(process)
    return found


def orphans(leader: int, folder: Path) -> list[psutil.Process]:
    """What is left of the session that the dead process `leader` led, working in `folder`.

    Empty while some process has that number: it would be another one's session. The folder guards against a number
    that was used again in between.
    """
    if is_alive(leader):
        return []
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess, psutil.AccessDenied):
            if os.getsid(process.pid) == leader and Path(process.cwd()) == folder and is_alive(process.pid):
                found.append(process)
    return found


def having_argument(fragment: str) -> list[psutil.Process]:
    """This user's processes that have `fragment` in their command line, except the caller."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.uids().real != os.getuid():
                continue
            if any(fragment in argument for argument in process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def files_in_use() -> set[str]:
    """Paths of files that a process of this host has open or mapped, as far as this user may see that."""
    found = set[str]()
    for process in psutil.process_iter():
        try:
            found |= {file.path for file in process.open_files()} | {part.path for part in process.memory_maps()}
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def end(members: Sequence[psutil.Process], grace_seconds: float = 10.0) -> None:
    """SIGTERM to each, `grace_seconds` to leave, SIGKILL to those that stay. Returns when all are gone."""
    _signal(members, signal.SIGTERM)
    if not wait_gone(members, grace_seconds):
        _signal(members, signal.SIGKILL)
        wait_gone(members, 5.0)


def end_tree(pid: int, grace_seconds: float = 10.0, leader_only: bool = False) -> None:
    """End process `pid` and all its descendants: SIGTERM, `grace_seconds` to leave, SIGKILL.

    The descendants are noted before the first signal: once their parent is gone nothing links them to it.

    Args:
        pid: the process at the top.
        grace_seconds: from SIGTERM to SIGKILL.
        leader_only: send the SIGTERM to `pid` alone, which then ends its own children in its own order.
    """
    members = tree(pid)
    _signal(members[:1] if leader_only else members, signal.SIGTERM)
    if not wait_gone(members, grace_seconds):
        _signal(members, signal.SIGKILL)
        wait_gone(members, 5.0)


@contextlib.contextmanager
def leashed(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """`command` as a child that does not outlive this process, even if this one is killed without a word.

    Between the two stands a keeper, which holds the reading end of a pipe: when its writing end is closed by the
    death of this process, the keeper ends the command with all that it started. It ends itself with the command, with
    the command's exit code (128 + n after signal n), and passes no signal on: `end_tree` reaches the command anyway.

    Args:
        options: of `subprocess.Popen`.
    """
    held, leash = os.pipe()
    try:
        keeper = [sys.executable, "-I", __file__, str(held), *command]
        try:
            process = subprocess.Popen(keeper, pass_fds=(held,), **options)
        finally:
            os.close(held)
        yield process
    finally:
        os.close(leash)


def _keep(held: int, command: Sequence[str]) -> int:
    """Run `command` and return its exit code; end it when nobody holds the other end of `held` any more."""
    # A handler is not inherited by the command, as an ignored signal would be.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    os.set_inheritable(held, False)
    child = subprocess.Popen(list(command))

    let_go = threading.Event()

    def watch() -> None:
        os.read(held, 1)  # nothing is ever written: it returns when the last writer is gone
        let_go.set()
        end_tree(child.pid)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = child.wait()
    if let_go.is_set():
        watcher.join()  # what the command had started may need longer than the command
    return code if code >= 0 else 128 - code


def _signal(members: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def wait_gone(members: Sequence[psutil.Process], timeout_seconds: float) -> bool:
    """Wait until none of `members` runs (zombies do not); False when the time is over."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        if not any(process.is_running() and is_alive(process.pid) for process in members):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)


def exit_on_sigterm() -> None:
    """From here on SIGTERM is an exception, so that the process leaves as after an error: what is open is closed."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(EXIT_TERMINATED)


@contextlib.contextmanager
def graceful_sigterm(ask: Callable[[], None], grace_seconds: float) -> Iterator[None]:
    """Within this block the first SIGTERM only calls `ask`, after which the block has `grace_seconds` to end by
    itself; a second SIGTERM, or the end of that time, exits. Does nothing in a thread that gets no signals.

    Args:
        ask: called once, from the signal handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            sys.exit(EXIT_TERMINATED)
        asked = True
        signal.setitimer(signal.ITIMER_REAL, grace_seconds)
        ask()

    before = {name: signal.signal(name, handler) for name, handler in ((signal.SIGTERM, terminate),
              (signal.SIGALRM, _leave))}  # fmt: skip
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for name, handler in before.items():
            signal.signal(name, handler)


if __name__ == "__main__":
    sys.exit(_keep(int(sys.argv[1]), sys.argv[2:]))
