"""Two runs with the same work: the second waits for the first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WORK = """
import sys
from ganpipe.stages.work import work_folder
folder = work_folder(None, "train", "key")
print("mine", flush=True)
sys.stdin.readline()
"""


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORK], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_one_run_at_a_time_is_at_the_same_work(tmp_path):
    first = _start(tmp_path)
    assert first.stdout.readline() == "mine\n"
    second = _start(tmp_path)
    assert second.stdout.readline() == "another run is at the same work (train-key); waiting for it to end\n"
    first.kill()  # however it ends, its work is free
    assert second.stdout.readline() == "mine\n"
    second.stdin.write("\n")
    second.stdin.close()
    assert second.wait(timeout=60) == 0
    first.wait(timeout=60)
