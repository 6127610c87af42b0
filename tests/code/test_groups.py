"""How `make test` spreads the tests over processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from groups import GROUPS, group

from ganpipe.processes import is_alive

TESTS = Path(__file__).parents[1]
WHERE = """
import os, pathlib, pytest
@pytest.mark.parametrize("name", ["first", "second"])
def test_where(name):
    with open("seen.txt", "a") as seen:
        print(f"{pathlib.Path(__file__).relative_to(pathlib.Path.cwd())}::test_where[{name}]", os.getpid(), file=seen)
"""

WITH_A_SERVICE = """
import sys, time, pathlib
from ganpipe import service_kinds, services

def launch(*_):
    port = str(service_kinds.free_port())
    url = "http://127.0.0.1:" + port
    return service_kinds.Launch([sys.executable, "-m", "http.server", port], {}, url, url, lambda: url)

def test_with_a_service(tmp_path):
    service_kinds.KINDS["mlflow"] = service_kinds.Kind("MLFLOW_TRACKING_URI", launch, lambda url, _: url)
    pathlib.Path("pid.txt").write_text(str(services.ensure("mlflow", tmp_path).pid))
    time.sleep(60)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    """This project's way to spread tests, in two processes, on the tests in `folder`."""
    shutil.copy(TESTS / "conftest.py", folder / "tests")
    (folder / "pytest.ini").touch()
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MLFLOW_"))}
    variables["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    variables["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-n", "2", "--no-loadscope-reorder"]
    return subprocess.Popen(
        [*command, f"--basetemp={folder / 'base'}"],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_ctrl_c_leaves_no_service(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(WITH_A_SERVICE)
    (tmp_path / "tests" / "test_other.py").write_text(WHERE)
    with start(tmp_path) as running:
        while not (tmp_path / "pid.txt").exists() or not (tmp_path / "pid.txt").read_text():
            assert running.poll() is None, running.communicate()[0]
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)
        said, _ = running.communicate(timeout=120)
    assert running.returncode == pytest.ExitCode.INTERRUPTED, said
    assert not is_alive(int((tmp_path / "pid.txt").read_text()))


def test_a_group_runs_in_one_process_and_the_groups_in_several(tmp_path: Path) -> None:
    """Asked of pytest-xdist itself, because its own grouping once stopped to work without a word."""
    files = ["gans/test_every_gan.py", "gans/test_on_a_device.py", "pipelines/test_dvc.py", "pipelines/test_verify.py"]
    for file in [*files, *(f"code/test_{number}.py" for number in range(6))]:
        (tmp_path / "tests" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / file).write_text(WHERE)
    with start(tmp_path) as running:
        said, _ = running.communicate(timeout=120)
    assert running.returncode == 0, said
    processes = defaultdict(set)
    for line in (tmp_path / "seen.txt").read_text().splitlines():
        test, process = line.split()
        processes[group(test)].add(process)
    assert sorted(processes) == [
        "project",
        *(f"tests/code/test_{n}.py" for n in range(6)),
        "tests/gans/first",
        "tests/gans/second",
    ]
    assert all(len(found) == 1 for found in processes.values()), processes
    assert len(set.union(*processes.values())) == 2


@pytest.mark.parametrize("fixture", GROUPS)
def test_all_tests_of_a_shared_fixture_are_in_its_group(fixture: str, request: pytest.FixtureRequest) -> None:
    """Of the tests that are run now: all of them under `make test`."""
    for item in request.session.items:
        found = item._fixtureinfo.name2fixturedefs.get(fixture, ())  # type: ignore[attr-defined]
        if found and found[-1].scope == "session":
            assert group(item.nodeid) == fixture, f"{item.nodeid} would set up {fixture} in another process once more"
