"""One `dvc` command as a child process: its output line by line, a time limit, and its whole tree ended with it."""

from __future__ import annotations

import codecs
import os
import re
import selectors
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ganpipe import processes
from ganpipe.redaction import redact

TAIL_LINES = 40
PROGRESS_EVERY_SECONDS = 10.0
"""A progress bar redraws itself many times per second; at most one of its states in this time becomes a line."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_live: set[int] = set()
_ended_at = -1.0
_live_lock = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """How a child ended."""

    returncode: int
    seconds: float
    timed_out: bool
    tail: tuple[str, ...]
    """Its last lines, stdout and stderr together, progress bars left out."""


def run(
    command: Sequence[str],
    cwd: Path,
    environment: Mapping[str, str],
    show: Callable[[str], None],
    timeout_seconds: float | None = None,
) -> Outcome:
    """Run `command` without a shell and give each line of its output to `show`.

    The child leads a process group of its own. When the time is over, or the caller is interrupted or killed, it and
    all that it started get SIGTERM, and SIGKILL 10 s later.
    """
    began = time.monotonic()
    deadline = None if timeout_seconds is None else began + timeout_seconds
    with processes.leashed(
        command,
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        returncode, timed_out, tail = _follow(process, show, deadline)
    return Outcome(returncode, time.monotonic() - began, timed_out, tail)


def _follow(
    process: subprocess.Popen[bytes], show: Callable[[str], None], deadline: float | None
) -> tuple[int, bool, tuple[str, ...]]:
    """See the child through: its exit code, whether `deadline` (monotonic seconds) passed, and its last lines."""
    began = time.monotonic()
    with _live_lock:
        _live.add(process.pid)
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    relay = _Relay(show, tail)
    timed_out = False
    try:
        for chunk in _chunks(process, deadline):
            relay.feed(chunk)
        timed_out = process.poll() is None
    finally:
        processes.end_tree(process.pid)
        process.wait()
        # Also after a normal end, because the stage may leave processes in its group. After `end_all` they get time to
        # end by themselves: a second signal would interrupt that.
        left = processes.group(process.pid)
        if not ended_since(began) or not processes.wait_gone(left, 10.0):
            processes.end(left)
        with _live_lock:
            _live.discard(process.pid)
        if process.stdout is not None:
            process.stdout.close()
        relay.finish()
    return process.returncode, timed_out, tuple(tail)


def end_all() -> None:
    """End every child that is running: for the way out of an interrupted flow."""
    global _ended_at
    _ended_at = time.monotonic()
    with _live_lock:
        pids = list(_live)
    for pid in pids:
        processes.end_tree(pid)


def ended_since(moment: float) -> bool:
    """Whether `end_all` was called after `moment` (monotonic seconds): then nothing is to be tried again."""
    return _ended_at >= moment


def _chunks(process: subprocess.Popen[bytes], deadline: float | None) -> Iterator[bytes]:
    """The output as it comes, until the child ends or `deadline` (monotonic seconds) passes.

    The end is the child's, not the pipe's: a background process that inherited the pipe would keep it open.
    """
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None
            ready = selector.select(timeout=0.0 if ended else 0.1)
            chunk = os.read(descriptor, 65536) if ready else b""
            if chunk:
                yield chunk
            elif ended:
                return
            elif ready:
                # The child closed its output and still runs.
                time.sleep(0.1)
            if deadline is not None and time.monotonic() > deadline:
                return


class _Relay:
    """Cuts output into lines. What ends in a carriage return is a state of a progress bar: few are passed on."""

    def __init__(self, show: Callable[[str], None], tail: deque[str]) -> None:
        self._show = show
        self._tail = tail
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._rest = ""
        self._last_progress = time.monotonic()

    def feed(self, chunk: bytes) -> None:
        # "\r\n" is one line end; a "\r" that is last so far may be the half of one.
        text = (self._rest + self._decode(chunk)).replace("\r\n", "\n")
        *lines, self._rest = text.split("\n")
        for line in lines:
            self._line(line)
        # The newest state that is complete; older ones are of no more use.
        states = self._rest.split("\r")
        if len(states) > 2:
            self._progress(states[-2] or states[-3])
            self._rest = "\r".join(states[-2:])

    def _line(self, line: str) -> None:
        # Of a bar that ended with a newline, its last state.
        text = _ANSI.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip()
        if text:
            text = redact(text)
            self._tail.append(text)
            self._show(text)

    def _progress(self, state: str) -> None:
        text = _ANSI.sub("", state).strip()
        if text and time.monotonic() - self._last_progress >= PROGRESS_EVERY_SECONDS:
            self._last_progress = time.monotonic()
            self._show(redact(text))

    def finish(self) -> None:
        if self._rest:
            self._line(self._rest)
            self._rest = ""
