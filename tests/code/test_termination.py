"""SIGTERM: first a request, then an end; the system's own signals to processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from ganpipe.processes import EXIT_TERMINATED

WORK = """
import sys, time
from ganpipe import processes
reacts, grace = sys.argv[1] == "reacts", float(sys.argv[2])
processes.exit_on_sigterm()
asked = []

def ask():
    asked.append(1)
    print("asked", flush=True)

try:
    with processes.graceful_sigterm(ask, grace):
        print("working", flush=True)
        while not (asked and reacts):
            time.sleep(0.01)
    print("ended by itself", flush=True)
    time.sleep(60 if sys.argv[3:] else 0)
finally:
    print("closed", flush=True)
"""


def _start(*arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WORK, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


def _rest(process: subprocess.Popen[str]) -> tuple[list[str], int]:
    out, _ = process.communicate(timeout=60)
    return out.splitlines(), process.returncode


def test_who_reacts_ends_by_itself() -> None:
    process = _start("reacts", "60")
    process.send_signal(signal.SIGTERM)
    assert _rest(process) == (["asked", "ended by itself", "closed"], 0)


@pytest.mark.parametrize("grace", ["60", "0.2"])
def test_who_does_not_is_ended_by_a_second_signal_or_by_the_end_of_the_time(grace: str) -> None:
    process = _start("sleeps", grace)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"
    if grace == "60":
        process.send_signal(signal.SIGTERM)
    assert _rest(process) == (["closed"], EXIT_TERMINATED)


def test_after_the_block_the_signal_is_as_before() -> None:
    process = _start("reacts", "0.2", "and goes on")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["asked\n", "ended by itself\n"]
    process.send_signal(signal.SIGTERM)
    assert _rest(process) == (["closed"], EXIT_TERMINATED)
