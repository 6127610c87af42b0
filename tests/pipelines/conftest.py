"""Small real DVC repositories, a checkout with a finished run, and a Prefect server for the flow tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from projects import Project, make_project
from repositories import git

from ganpipe import services

if TYPE_CHECKING:
    from report_parts import Checkout

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def empty_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `dvc init` makes; it is copied, because starting DVC takes longer than many a test."""
    root = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=root, check=True)
    return root


@pytest.fixture
def make_repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_repo: Path) -> Make:
    """A function `(dvc_yaml, **files)` that makes a DVC repository and changes into it.

    `PYTHON` in its dvc.yaml is this interpreter; a file's name is given with `__` for its last dot.
    """

    def make(dvc_yaml: str, **files: str) -> Path:
        root = Path(shutil.copytree(empty_repo, tmp_path / "repo"))
        (root / "dvc.yaml").write_text(textwrap.dedent(dvc_yaml).replace("PYTHON", sys.executable))
        for name, text in files.items():
            (root / name.replace("__", ".")).write_text(textwrap.dedent(text))
        monkeypatch.chdir(root)
        return root

    return make


@pytest.fixture
def make_checkout(make_repo: Make) -> Make:
    """As `make_repo`, in a git repository with everything committed."""

    def make(dvc_yaml: str, **files: str) -> Path:
        root = make_repo(dvc_yaml, **files)
        git(root, "init", "--quiet", "--initial-branch", "main")
        (root / ".dvc" / "config").write_text("")  # made with --no-scm
        (root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        with open(root / ".gitignore", "a", encoding="utf-8") as ignored:
            ignored.write("/.ganpipe/\n/*.txt\n/score.json\n/images/*\n!/images/.gitkeep\n")
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--message", "first")
        return root

    return make


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project after one `dvc repro`, committed. Tests that change something work on a copy."""
    project = make_project(tmp_path_factory.mktemp("dvc") / "project")
    try:
        project.dvc("repro")
        project.commit("What the pipeline made")
        yield project
    finally:
        services.stop(project.root)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with a finished run; not to be changed."""
    from report_parts import make_finished

    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            patch.delenv(name, raising=False)
        return make_finished(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A temporary Prefect server that all flows of the session report to."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield
