"""Wherever DVC or a flow runs a stage, registry, services and interrupted work are the checkout's, and the code is that
of the place where it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from projects import SOURCE, Project, make_project
from repositories import git

from ganpipe import environment, services
from ganpipe.errors import GanpipeError
from ganpipe.processes import start_time

DVC_YAML = """
stages:
  look:
    cmd: ganpipe --version > version.txt && PYTHON look.py
    deps: [look.py]
    params: [number]
    outs: [version.txt]
"""
LOOK = """
import json, os, pathlib, sys
from ganpipe import environment
with open(os.environ["SEEN"], "w") as seen:
    json.dump({"home": str(environment.home()), "cwd": os.getcwd(), "version": open("version.txt").read()}, seen)
"""


@pytest.fixture
def checkout(make_checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository with a `ganpipe` of its own, beside the one that is installed."""
    root = make_checkout(DVC_YAML, look__py=LOOK, params__yaml="number: 1\n")
    _own_code(root, "1.0+checkout")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "code")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen.json"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    for name, value in (("NAME", "A person"), ("EMAIL", "person@example.org")):
        monkeypatch.setenv(f"GIT_AUTHOR_{name}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{name}", value)
    for name in ("PYTHONPATH", "GANPIPE_CHECKOUT", "GANPIPE_CODE"):
        monkeypatch.delenv(name, raising=False)
    return root


def _own_code(root: Path, version: str) -> None:
    shutil.rmtree(root / "ganpipe", ignore_errors=True)
    shutil.copytree(SOURCE / "ganpipe", root / "ganpipe", ignore=shutil.ignore_patterns("__pycache__"))
    init = root / "ganpipe" / "__init__.py"
    init.write_text(init.read_text(encoding="utf-8") + f'\n__version__ = "{version}"\n', encoding="utf-8")


def _dvc(cwd: Path, *arguments: str) -> dict[str, str]:
    """What the stage has seen that this command of DVC ran."""
    seen = Path(os.environ["SEEN"])
    seen.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=cwd, check=True, capture_output=True, timeout=300)
    found: dict[str, str] = json.loads(seen.read_text(encoding="utf-8"))
    return found


def test_a_temporary_experiment_uses_the_checkouts_home_and_its_own_code(checkout: Path) -> None:
    seen = _dvc(checkout, "exp", "run", "--temp", "--set-param", "number=2")
    assert seen["cwd"].startswith(f"{checkout}/.dvc/tmp/exps/")
    assert seen["home"] == str(checkout)
    assert seen["version"] == "ganpipe 1.0+checkout\n", "the installed code ran, of which DVC has no digest"


def test_a_worktree_uses_the_main_ones_home_and_its_own_code(checkout: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    git(checkout, "worktree", "add", "--quiet", "-b", "other", str(tree))
    _own_code(tree, "2.0+worktree")
    seen = _dvc(tree, "repro")
    assert (seen["cwd"], seen["home"], seen["version"]) == (str(tree), str(checkout), "ganpipe 2.0+worktree\n")
    # Its commands see the services that its stages use.
    me, address = os.getpid(), "127.0.0.1:1"
    record = services.Running("ray", f"http://{address}", address, me, start_time(me), root=str(checkout))
    (checkout / services.STATE).mkdir(parents=True)
    (checkout / services.STATE / "ray.json").write_text(json.dumps(asdict(record)), encoding="utf-8")
    shown = subprocess.run(["ganpipe", "services"], cwd=tree, capture_output=True, text=True, check=True).stdout
    assert f"address {address}  pid {me}" in shown


def test_the_home_of_every_place(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = environment.home
    (checkout / "some" / "folder").mkdir(parents=True)
    assert home(checkout) == home(checkout / "some" / "folder") == checkout
    workspace = checkout / ".ganpipe" / "workspaces" / "kept"
    git(tmp_path, "clone", "--quiet", str(checkout), str(workspace))
    assert home(workspace) == checkout, "somebody looks into the workspace of a failed run"
    tree = tmp_path / "tree"
    git(checkout, "worktree", "add", "--quiet", "-b", "other", str(tree))
    inner = tree / ".dvc" / "tmp" / "exps" / "tmp1"
    (inner / ".dvc").mkdir(parents=True)
    assert home(inner) == checkout, "an experiment of a worktree"
    monkeypatch.setenv("GANPIPE_CHECKOUT", str(tree))
    assert home() == checkout, "a flow that was deployed from a worktree"
    monkeypatch.delenv("GANPIPE_CHECKOUT")
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(checkout), str(bare))
    git(bare, "worktree", "add", "--quiet", str(tmp_path / "alone"), "main")
    assert home(tmp_path / "alone") == tmp_path / "alone", "there is no main worktree"
    (tmp_path / "module").mkdir()
    git(tmp_path / "module", "init", "--quiet")
    git(tmp_path / "module", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(checkout), "inner")
    assert home(tmp_path / "module" / "inner") == tmp_path / "module" / "inner", "a submodule is a checkout of its own"
    (tmp_path / "plain").mkdir()
    assert home(tmp_path / "plain") == tmp_path / "plain"
    monkeypatch.setenv("GANPIPE_CHECKOUT", str(tmp_path / "gone"))
    with pytest.raises(GanpipeError, match=f"GANPIPE_CHECKOUT: {tmp_path}/gone is no folder; "):
        home()


def test_an_environment_that_was_made_at_another_place_is_made_anew(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy2(SOURCE / name, tmp_path / name)
    here = tmp_path / ".venv"
    here.mkdir()
    (here / ".installed").touch()

    # As called from a shell: the make that runs these tests would be this make's parent, and change what it says.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}

    def make(*arguments: str) -> str:
        return subprocess.run(
            ["make", *arguments], cwd=tmp_path, env=outside, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    done = "make: Nothing to be done for 'venv'.\n"
    for command in (
        f"/usr/bin/python3.11 -m venv {here}",
        f"/usr/bin/python3.11 -m venv --clear {here}",  # says its place after an option: taken as it is
    ):
        (here / "pyvenv.cfg").write_text(f"home = /usr/bin\ncommand = {command}\n")
        assert make("venv") == done
    (here / "pyvenv.cfg").write_text("home = /usr/bin\nuv = 0.9\n")
    assert make("venv") == done
    (here / "pyvenv.cfg").write_text("home = /usr/bin\ncommand = /usr/bin/python3.11 -m venv /before/.venv\n")
    assert "-m pip install --quiet --disable-pip-version-check -r requirements.lock\n" in make("--dry-run", "venv")
    assert make("moved") == ".venv was made at another place: it is made anew here\n"
    assert not here.exists()


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_models_of_temporary_and_queued_experiments_are_the_checkouts(tmp_path: Path) -> None:
    """The whole pipeline with `--temp`, then two queued experiments at once."""
    project = make_project(tmp_path / "project")
    project.set("tune.num_trials", 0)
    project.commit("No search")
    try:
        project.dvc("exp", "run", "--temp")
        for seed in (1, 2):
            project.dvc("exp", "run", "--queue", "--set-param", f"train.seed={seed}")
        # Its workers keep the output open that they inherit.
        start = ["dvc", "queue", "start", "--jobs", "2"]
        subprocess.run(start, cwd=project.root, env=project.environment, stdout=subprocess.DEVNULL, check=True)
        _wait_for_the_queue(project)
        found = json.loads(project.run("ganpipe", "models", "--json"))
        assert [item["version"] for item in found["versions"]] == [3, 2, 1]
        judged = [item["why"] for item in found["versions"] if item["version"] > 1]
        assert all("of version 1, the champion" in why or "of version 2, the champion" in why for why in judged), judged
        assert "ray      http://127.0.0.1:" in project.run("ganpipe", "services")
        assert project.run("ganpipe", "down") == "stopped ray\n", "two jobs share the one Ray"
        assert [path for path in (project.root / ".ganpipe" / "work").iterdir() if path.is_dir()] == []
        assert _processes_below(project.root) == []
    finally:
        project.run("ganpipe", "down")


def _wait_for_the_queue(project: Project) -> None:
    deadline = time.monotonic() + 900
    while "Running" in (status := project.dvc("queue", "status")) or "Queued" in status:
        assert time.monotonic() < deadline, status
        time.sleep(2)
    assert status.count("Success") == 2, status


def _processes_below(root: Path) -> list[list[str]]:
    """Ray's processes that work in `root` or below, also where that folder is gone."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(root)) and "ray" in " ".join(process.cmdline()):
                found.append(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
