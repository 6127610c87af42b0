"""`make run` as a stranger types it: all services and stages, the closing words, and a second time."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from projects import STAGES, add_makefile, make_project

pytestmark = pytest.mark.slow


def test_make_run_twice(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    add_makefile(project)
    try:
        said = project.run("make", "run")
        closing = said[said.rindex("\ndone in ") :]
        assert re.search(r"^model +models:/ganpipe-mnist/1 @challenger @champion$", closing, re.M), closing
        assert re.search(
            r"^fid_efficientnet_lite0 \d+\.\d\d \(floor [\d.]+\)  efficientnet_lite0 .* protocol \w{16}$", closing, re.M
        )
        for path in ("artifacts/evaluate/figures/samples.png", "artifacts/train/curves/", "report.html"):
            assert path in closing
            assert (project.root / path).exists()
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


def test_make_run_behind_a_proxy_in_a_folder_with_any_name(tmp_path: Path) -> None:
    """Every service, client and worker: nothing on loopback goes through the proxy, and no path is cut anywhere."""
    root = tmp_path / ("it's #1 & co; é😀 [x] (a)=b+c@d,~!^*|<>" + "n" * 150) / "checkout"
    project = make_project(root)
    project.set("tune.num_trials", 0)
    add_makefile(project)
    proxies = dict.fromkeys(("http_proxy", "HTTPS_PROXY", "all_proxy"), "http://127.0.0.1:9")
    interpreter = str(root / ".venv" / "bin" / "python")
    # As after an install in the checkout: the interpreter that everything is started with lies below its path.
    path = os.pathsep.join([str(root / ".venv" / "bin"), os.environ["PATH"]])
    project = replace(project, environment=project.environment | proxies | {"PATH": path, "no_proxy": "example.org"})
    try:
        assert "models:/ganpipe-mnist/1 @challenger @champion" in project.run("make", "run")
        assert list((root / "mlartifacts").rglob("samples.png"))
        assert "does not answer" not in project.run(interpreter, "-m", "ganpipe", "services")
        project.run(interpreter, "-m", "ganpipe", "sample", "--num", "4", "--out", "grid.png")
        assert (root / "grid.png").is_file()
    finally:
        project.run("make", "stop")
    assert sorted(path.name for path in root.parent.iterdir()) == ["checkout", "checkout-cache"]
    assert [path.name for path in tmp_path.iterdir()] == [root.parent.name], "no path was cut at one of the characters"


def test_make_run_twice_at_once(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    add_makefile(project)
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    try:
        runs = [
            subprocess.Popen(
                ["make", "run"],
                cwd=project.root,
                env=project.environment,
                stdout=log.open("w"),
                stderr=subprocess.STDOUT,
            )
            for log in logs
        ]
        codes = [run.wait(timeout=900) for run in runs]
    finally:
        project.run("make", "stop")
    first, second = sorted((log.read_text() for log in logs), key=lambda text: "waiting for" in text)
    assert codes == [0, 0], f"{first}\n{second}"
    assert "waiting for" not in first
    assert "\ndone in " in first
    assert re.match(r"waiting for `make run` \(process \d+, since [-\d]+ [:\d]+\): one run at a time", second), second
    assert "nothing to do: every output is up to date" in second
    assert project.stale() == []
