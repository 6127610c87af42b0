"""Two runs in one checkout, and runs beside DVC commands of others: who comes second waits and says for whom."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ganpipe import processes
from ganpipe.errors import GanpipeError
from pipelines import turns
from pipelines.__main__ import stale
from pipelines.graph import read_graph
from pipelines.stages import child_environment, run_one

ROOT = Path(__file__).parents[2]
RUN = """
import sys
from pathlib import Path
from pipelines import turns
with turns.one_at_a_time(Path.cwd(), "make run", lambda line: print(line, flush=True)):
    with turns.one_at_a_time(Path.cwd(), "flow run within", print):
        print("mine", flush=True)
        sys.stdin.readline()
"""
HELD = """
stages:
  held:
    cmd: PYTHON held.py
    deps: [held.py]
    outs: [held.txt]
"""
WORK = """
import pathlib, time
with open("tries", "a") as tries:
    tries.write("x")
while not pathlib.Path("go").exists():
    time.sleep(0.05)
pathlib.Path("held.txt").write_text("done")
"""
SINCE = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_one_run_at_a_time_is_in_a_checkout(tmp_path: Path) -> None:
    first = _start(tmp_path)
    assert first.stdout.readline() == "mine\n"
    second = _start(tmp_path)
    said = second.stdout.readline()
    assert re.fullmatch(
        rf"waiting for `make run` \(process {first.pid}, {SINCE}\): one run at a time is at work in a checkout\n", said
    )
    first.kill()  # however it ends, the checkout is free
    assert second.stdout.readline() == "mine\n"
    assert second.communicate("\n", timeout=60)[0] == ""
    assert second.returncode == 0
    first.communicate(timeout=60)


@pytest.fixture
def held(make_repo):
    """A repository in which another `dvc repro` is at work until the file `go` is there: its folder and process."""
    root = make_repo(HELD, held__py=WORK)
    other = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=root, start_new_session=True)
    try:
        _until(lambda: (root / "tries").exists())
        yield root, other
    finally:
        processes.end_tree(other.pid)
        other.wait()


def _until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _in_thread(action):
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(action()), daemon=True)
    thread.start()
    return thread, results


def test_make_run_waits_for_a_dvc_repro_and_finds_its_work_done(held, capsys):
    root, other = held
    thread, results = _in_thread(lambda: stale(root, []))
    said = ""

    def is_told() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return said.endswith("\n")

    _until(is_told)
    assert re.fullmatch(
        rf"waiting for `dvc repro --quiet` \(process {other.pid}, {SINCE}\), which is at work in this checkout\n", said
    )
    (root / "go").touch()
    thread.join(timeout=60)
    assert results == [[]]
    assert capsys.readouterr().out == ""


def test_a_stage_waits_for_a_dvc_repro_and_is_not_run_twice(held, caplog):
    root, other = held
    logger = logging.getLogger("test")
    caplog.set_level(logging.INFO)
    (stage,) = read_graph(root)
    thread, results = _in_thread(lambda: run_one(stage, root, False, logger, child_environment(root, root)))
    _until(lambda: "waiting for" in caplog.text)
    (root / "go").touch()
    thread.join(timeout=60)
    assert results == ["cached"]
    assert (root / "tries").read_text() == "x"
    messages = [record.getMessage() for record in caplog.records if record.name == "test"]
    assert messages[0].startswith(f"waiting for `dvc repro --quiet` (process {other.pid}, since ")
    assert "remove" not in caplog.text  # DVC's advice to delete a lock that is alive


def test_who_has_dvc_s_lock_for_long_is_named(tmp_path):
    said: list[str] = []
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    with (tmp_path / ".dvc" / "tmp" / "lock").open("w") as lock:
        # As zc.lockfile, DVC's own, does it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f" {os.getpid()}\n")
        lock.flush()
        thread, results = _in_thread(turns.OtherDvcCommands(tmp_path, said.append).wait_for_lock)
        _until(lambda: said)
    thread.join(timeout=60)
    assert results == [True]
    assert f"(process {os.getpid()}, since " in said[0]


def test_a_killed_dvc_whose_number_another_program_has_is_said(make_repo):
    root = make_repo(HELD, held__py=WORK)
    note = {"pid": os.getpid(), "cmd": "dvc repro held"}
    (root / ".dvc" / "tmp").mkdir(exist_ok=True)
    (root / ".dvc" / "tmp" / "rwlock").write_text(json.dumps({"write": {str(root / "held.txt"): note}, "read": {}}))
    with pytest.raises(GanpipeError) as caught:
        stale(root, [])
    said = str(caught.value)
    assert said.startswith(f".dvc/tmp/rwlock: names process {os.getpid()} as `dvc repro held`, but that process is `py")
    assert said.endswith("the DVC command was killed; delete .dvc/tmp/rwlock and run this again")
    # As it says.
    (root / ".dvc" / "tmp" / "rwlock").unlink()
    assert stale(root, []) == ["held"]
