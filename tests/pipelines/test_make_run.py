"""`make run` as a stranger types it: all services and stages, the closing words, and a second time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from projects import STAGES, add_makefile, make_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_make_run_twice(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    add_makefile(project)
    try:
        said = project.run("make", "run")
        closing = said[said.rindex("\ndone in ") :]
        assert re.search(r"^model +models:/ganpipe-mnist/1 @challenger @champion$", closing, re.M), closing
        assert re.search(r"^fid_efficientnet_lite0 \d+\.\d\d  efficientnet_lite0 .* protocol \w{16}$", closing, re.M)
        for path in ("artifacts/evaluate/samples.png", "artifacts/train/curves.csv", "report.html"):
            assert path in closing
            assert (project.root / path).is_file()
        times = re.findall(r"^  (\w+) +(?:\d+ min )?\d+(?:\.\d)? s$", closing, re.M)
        assert sorted(times) == sorted(STAGES)
        for page in ("prefect", "ray", "mlflow"):
            assert re.search(rf"^  {page} +http://127\.0\.0\.1:\d+", closing, re.M), closing
        assert "next: " in closing

        again = project.run("make", "run")
        assert "nothing to do: every output is up to date" in again
        assert "models:/ganpipe-mnist/1 @challenger @champion" in again
        assert "stage" not in again.split("nothing to do")[0]
    finally:
        project.run("make", "stop")
    assert "is up" not in project.run("ganpipe", "services")
