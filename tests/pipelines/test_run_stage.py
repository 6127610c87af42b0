"""A child's output, cut into lines."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganpipe import processes
from pipelines import run_stage

ROOT = Path(__file__).parents[2]


def _run(code: str, tmp_path, **options):
    shown: list[str] = []
    outcome = run_stage.run([sys.executable, "-u", "-c", code], tmp_path, os.environ, shown.append, **options)
    return outcome, shown


def test_lines_of_both_streams_in_order(tmp_path):
    code = "import sys\nfor i in range(3):\n    print(i)\n    print('e', i, file=sys.stderr)\nsys.exit(7)"
    outcome, shown = _run(code, tmp_path)
    assert shown == ["0", "e 0", "1", "e 1", "2", "e 2"]
    assert (outcome.returncode, outcome.timed_out, outcome.tail) == (7, False, tuple(shown))


def test_a_progress_bar_is_one_line_and_a_last_line_needs_no_newline(tmp_path):
    code = (
        "import sys, time\n"
        "for i in range(40):\n    sys.stdout.write(f'\\r{i} of 40'); time.sleep(0.005)\n"
        "print()\nsys.stdout.write('\\x1b[31mred\\x1b[0m\\r\\n'); sys.stdout.write('end')"
    )
    assert _run(code, tmp_path)[1] == ["39 of 40", "red", "end"]


def test_a_long_bar_shows_a_state_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(run_stage, "PROGRESS_EVERY_SECONDS", 0.2)
    code = (
        "import sys, time\n"
        "for i in range(100):\n    sys.stderr.write(f'\\r{i}%'); time.sleep(0.01)\n"
        "sys.stderr.write('\\r100%\\n')"
    )
    outcome, shown = _run(code, tmp_path)
    assert 3 <= len(shown) <= outcome.seconds / 0.2 + 2
    assert all(line.endswith("%") for line in shown)
    assert outcome.tail == ("100%",)


def test_bytes_that_are_no_text_and_letters_cut_in_two(tmp_path):
    code = "import os, time\nos.write(1, b'gr\\xc3'); time.sleep(0.3)\n"
    code += "os.write(1, b'\\xbcn\\n'); os.write(1, b'\\xff ok\\n')"
    assert _run(code, tmp_path)[1] == ["grün", "\ufffd ok"]


def test_a_background_child_that_keeps_the_pipe_does_not_hold_the_run(tmp_path):
    code = (
        "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\nprint('done')"
    )
    outcome, shown = _run(code, tmp_path)
    assert shown == ["done"]
    assert outcome.seconds < 20


CALLER = """
import os, sys
from pathlib import Path
from pipelines import run_stage
run_stage.run([sys.executable, "-c", sys.argv[1]], Path.cwd(), dict(os.environ), print)
"""
STUBBORN = """
import os, pathlib, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(0, flush=True); time.sleep(300)"
child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
child.stdout.readline()
pathlib.Path("pids.new").write_text(f"{os.getpid()} {child.pid}")
os.rename("pids.new", "pids")
time.sleep(300)
"""


@pytest.mark.slow
def test_a_caller_that_is_killed_takes_its_children_along(tmp_path):
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    caller = subprocess.Popen([sys.executable, "-c", CALLER, STUBBORN], cwd=tmp_path, env=variables)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pids").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    caller.kill()
    caller.wait()
    while any(processes.is_alive(pid) for pid in pids):  # the one that does not listen has ten seconds
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_service_that_a_child_started_is_shared_and_stays(tmp_path):
    code = (
        "import os, subprocess, sys, time\n"
        "service = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], start_new_session=True,\n"
        "    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, 'GANPIPE_SERVICE': 'ray'})\n"
        "print(service.pid, flush=True)\n"
        "time.sleep(300)"
    )
    outcome, shown = _run(code, tmp_path, timeout_seconds=2)
    assert outcome.timed_out
    service = int(shown[0])
    try:
        assert processes.is_alive(service)
    finally:
        processes.end_tree(service)
    assert not processes.is_alive(service)
