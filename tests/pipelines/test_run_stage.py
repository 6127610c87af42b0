"""A child's output, cut into lines."""

from __future__ import annotations

import os
import sys

from pipelines import run_stage


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
