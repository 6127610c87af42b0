"""How `make test` spreads the tests over processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from groups import GROUPS, group

TESTS = Path(__file__).parents[1]
WHERE = """
import os, pathlib, pytest
@pytest.mark.parametrize("name", ["first", "second"])
def test_where(name):
    with open("seen.txt", "a") as seen:
        print(f"{pathlib.Path(__file__).relative_to(pathlib.Path.cwd())}::test_where[{name}]", os.getpid(), file=seen)
"""


def test_a_group_runs_in_one_process_and_the_groups_in_several(tmp_path: Path) -> None:
    """Asked of pytest-xdist itself, because its own grouping once stopped to work without a word."""
    files = ["gans/test_every_gan.py", "gans/test_on_a_device.py", "pipelines/test_dvc.py", "pipelines/test_verify.py"]
    for file in [*files, *(f"code/test_{number}.py" for number in range(6))]:
        (tmp_path / "tests" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / file).write_text(WHERE)
    shutil.copy(TESTS / "conftest.py", tmp_path / "tests")
    (tmp_path / "pytest.ini").touch()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    variables["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    variables["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-n", "2", "--no-loadscope-reorder"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
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
