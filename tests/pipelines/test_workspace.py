"""Runs in workspaces of their own, on small real repositories: git, DVC and its experiments as a user has them."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from dvc.repo import Repo
from repositories import git

from ganpipe.errors import GanpipeError
from pipelines import workspace
from pipelines.flow import pipeline
from pipelines.sweep import sweep

pytestmark = pytest.mark.usefixtures("prefect_server")

SQUARE = """
stages:
  read:
    cmd: PYTHON work.py read
    deps: [work.py, images]
    params: [offset]
    outs: [numbers.txt]
  square:
    cmd: PYTHON work.py square
    deps: [numbers.txt, work.py]
    params: [section.power]
    metrics: [score.json]
"""
WORK = """
import json, os, pathlib, sys
import yaml
params = yaml.safe_load(open("params.yaml"))
if sys.argv[1] == "read":
    images = sorted(path.name for path in pathlib.Path("images").glob("*.png"))
    pathlib.Path("numbers.txt").write_text(str(len(images) + params["offset"]))
else:
    number = int(pathlib.Path("numbers.txt").read_text())
    if number > 90:
        sys.exit("error: numbers.txt: got %d; expected 90 or less" % number)
    pathlib.Path("score.json").write_text(json.dumps({"score": number ** params["section"]["power"]}))
    pathlib.Path(os.environ.get("GANPIPE_CHECKOUT", "."), ".ganpipe", "seen.json").write_text(json.dumps(
        {"cwd": os.getcwd(), "path": os.environ.get("PYTHONPATH", "")}))
"""
PARAMS = "offset: 3  # added to the number of images\nsection:\n  power: 2\n"


@pytest.fixture
def checkout(make_checkout):
    root = make_checkout(SQUARE, work__py=WORK, params__yaml=PARAMS)
    (root / "images").mkdir()
    (root / "images" / ".gitkeep").touch()
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "images")
    return root


def _run(name: str, **parameters):
    return pipeline.with_options(flow_run_name=name)(return_state=True, **parameters)


@pytest.mark.parametrize(("configured", "author"), [("", "ganpipe"), ("[user]\nname = Ada\nemail = a@b.c\n", "Ada")])
def test_an_experiment_is_kept_where_git_knows_no_person(checkout, tmp_path, monkeypatch, configured, author):
    for variable in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / ".gitconfig").write_text(configured)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / ".gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    with workspace.opened(checkout, "container", "HEAD", is_retry=False) as space:
        (space.root / "numbers.txt").write_text("3")
        (space.root / "score.json").write_text("{}")
        commit = workspace.save(space, [], "kept")
    assert git(checkout, "show", "--no-patch", "--format=%an", commit) == author


def _error(state) -> str:
    with pytest.raises(GanpipeError) as caught:
        state.result()
    return str(caught.value)


def _experiments(root: Path) -> dict[str, dict]:
    """Name -> metrics, as `dvc exp show` has them; asked in this process, because starting DVC takes longer."""
    with contextlib.chdir(root), Repo() as repo:
        shown = [experiment for baseline in repo.experiments.show() for experiment in baseline.experiments or []]
    return {made.name: made.data.metrics["score.json"]["data"] for experiment in shown for made in experiment.revs}


def test_a_run_is_kept_as_an_experiment_and_leaves_the_checkout_alone(checkout):
    before = git(checkout, "status", "--porcelain")
    state = _run("bold-otter", overrides={"section.power": 3})
    result = state.result()
    assert (result["experiment"], result["commit"]) == ("bold-otter", git(checkout, "rev-parse", "HEAD"))
    assert git(checkout, "status", "--porcelain") == before
    assert not (checkout / "score.json").exists()
    assert not (checkout / workspace.WORKSPACES / "bold-otter").exists()
    seen = json.loads((checkout / ".ganpipe" / "seen.json").read_text())
    assert seen["cwd"] == str(checkout / workspace.WORKSPACES / "bold-otter")
    assert seen["path"].split(os.pathsep)[0] == seen["cwd"]

    assert _experiments(checkout) == {"bold-otter": {"score": 27}}
    subprocess.run([sys.executable, "-m", "dvc", "exp", "apply", "bold-otter"], cwd=checkout, check=True)
    assert json.loads((checkout / "score.json").read_text()) == {"score": 27}
    assert (checkout / "numbers.txt").read_text() == "3"
    assert (checkout / "params.yaml").read_text() == PARAMS.replace("power: 2", "power: 3")  # comments kept
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--dry"], cwd=checkout, capture_output=True, text=True
    )
    assert "Data and pipelines are up to date" in status.stdout


def test_edits_that_decide_the_result_are_refused_left_out_or_taken_along(checkout):
    (checkout / "params.yaml").write_text(PARAMS.replace("offset: 3", "offset: 30"))
    for name in ("a.png", "b.png"):
        (checkout / "images" / name).write_bytes(b"image")  # git ignores them: every run has them
    message = _error(_run("refused"))
    assert message.startswith("not committed, and it decides what a run makes: params.yaml. Commit it (`git add params")
    assert "uncommitted=include, which takes it along" in message
    assert not (checkout / ".ganpipe" / "seen.json").exists()
    assert not (checkout / workspace.WORKSPACES / "refused").exists()

    _run("without", uncommitted="ignore").result()
    (checkout / "new module.py").write_text("")
    _run("with", uncommitted="include").result()
    assert _experiments(checkout) == {"without": {"score": 25}, "with": {"score": 1024}}  # (2 images + 3 or 30) ** 2
    (checkout / "new module.py").unlink()
    # As the sentence says.
    git(checkout, *shlex.split(message.split("`")[1].split(" && ")[0])[1:])
    git(checkout, "commit", "--quiet", "--message", "offset 30")
    (checkout / "notes.md").write_text("decides nothing")
    _run("committed").result()
    assert _experiments(checkout)["committed"] == {"score": 1024}


def test_a_sweep_is_refused_before_its_first_run(checkout):
    (checkout / "params.yaml").write_text(PARAMS.replace("offset: 3", "offset: 30"))
    message = _error(sweep(gans=["one"], return_state=True))
    assert message.startswith("not committed, and it decides what a run makes: params.yaml. ")
    assert message.endswith("or start the run with uncommitted=ignore, which runs without it")


def test_images_that_git_does_not_know_need_not_be_committed(checkout):
    (checkout / ".gitignore").write_text("/.ganpipe/\n/*.txt\n/score.json\n")
    git(checkout, "commit", "--quiet", "--all", "--message", "images are not ignored")
    (checkout / "images" / "a.png").write_bytes(b"image")
    message = _error(_run("unknown"))
    assert "not committed, and it decides what a run makes: images/a.png. " in message
    # As it says.
    words = shlex.split(message.split("`")[3])
    assert (words[0], words[2:]) == ("echo", [">>", ".git/info/exclude"])
    with (checkout / ".git" / "info" / "exclude").open("a") as excluded:
        excluded.write(f"{words[1]}\n")
    _run("excluded").result()
    assert _experiments(checkout) == {"excluded": {"score": 16}}


def test_which_edits_decide_the_result(checkout):
    (checkout / ".gitignore").write_text("/.ganpipe/\n/*.txt\n/score.json\n")
    git(checkout, "commit", "--quiet", "--all", "--message", "images are in git")
    decisive = {
        "work.py": Path("work.py"),
        "dvc.yaml": Path("dvc.yaml"),
        "images/c.png": Path("images"),
        "ganpipe/gans/mine.py": Path("ganpipe"),
    }
    for name in (*decisive, "notes/\N{LATIN SMALL LETTER U WITH DIAERESIS} b.md", "numbers.txt", "dvc.lock"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        with open(checkout / name, "a", encoding="utf-8") as file:
            file.write("schema: '2.0'\n" if name == "dvc.lock" else "\n")
    edited = workspace.uncommitted(checkout)
    # A folder that git does not know is named as one.
    assert set(edited) == {"work.py", "dvc.yaml", "images/c.png", "ganpipe/", "notes/"}
    assert set(workspace.decisive(checkout, edited).values()) == set(decisive.values())


def test_what_is_taken_along_is_what_lies_in_the_checkout(checkout):
    (checkout / "work.py").rename(checkout / "moved.py")
    (checkout / "link").symlink_to("moved.py")
    (checkout / "numbers.txt").write_text("git ignores it")
    with workspace.opened(checkout, "along", "HEAD", is_retry=False, uncommitted="include") as space:
        assert not (space.root / "work.py").exists()
        assert (space.root / "moved.py").read_text() == (checkout / "moved.py").read_text()
        assert os.readlink(space.root / "link") == "moved.py"
        assert not (space.root / "numbers.txt").exists()
        assert git(space.root, "rev-parse", "HEAD") == git(checkout, "rev-parse", "HEAD")


def test_a_retry_of_a_refused_run_is_refused_too_and_one_with_a_workspace_goes_on(checkout):
    (checkout / "params.yaml").write_text(PARAMS.replace("offset: 3", "offset: 30"))
    with pytest.raises(GanpipeError, match="not committed"):
        workspace.opened(checkout, "kept", "HEAD", is_retry=True, uncommitted="refuse").__enter__()
    with workspace.opened(checkout, "kept", "HEAD", is_retry=False, uncommitted="ignore"):
        pass
    with workspace.opened(checkout, "kept", "HEAD", is_retry=True, uncommitted="refuse") as space:
        assert (space.root / "params.yaml").read_text() == PARAMS
    with pytest.raises(GanpipeError, match="uncommitted: include is for what lies in the checkout, not for the revi"):
        workspace.opened(checkout, "other", "main", is_retry=False, uncommitted="include").__enter__()


def test_a_run_at_another_revision(checkout):
    (checkout / "params.yaml").write_text(PARAMS.replace("power: 2", "power: 1"))
    git(checkout, "commit", "--quiet", "--all", "--message", "power 1")
    git(checkout, "tag", "linear")
    (checkout / "params.yaml").write_text(PARAMS)
    git(checkout, "commit", "--quiet", "--all", "--message", "power 2")
    assert _run("tagged", revision="linear").result()["commit"] == git(checkout, "rev-parse", "linear")
    assert "no commit 'liner'" in _error(_run("misspelt", revision="liner"))
    assert "linear" in _error(_run("misspelt", revision="liner"))
    # An experiment is a revision, too: this one goes on from it.
    _run("further", revision="tagged", overrides={"offset": 7}).result()
    linear = git(checkout, "for-each-ref", "--format=%(refname:lstrip=-1)", "refs/exps").split()
    assert {"tagged", "further"} <= set(linear)
    assert "did you mean 'further'?" in _error(_run("misspelt", revision="farther"))


def test_a_run_of_some_stages_where_others_have_run_before(checkout):
    (checkout / ".ganpipe").mkdir()
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=checkout, check=True)
    git(checkout, "add", "dvc.lock")
    git(checkout, "commit", "--quiet", "--message", "lock")
    assert _run("part", targets=["read"], overrides={"offset": 5}).result()["experiment"] == "part"
    subprocess.run([sys.executable, "-m", "dvc", "exp", "apply", "part"], cwd=checkout, check=True)
    assert (checkout / "numbers.txt").read_text() == "5"


def test_equal_stages_of_two_runs_share_dvc_s_cache(checkout):
    first = _run("one").result()
    state = _run("two", overrides={"section.power": 3})
    assert state.result()["experiment"] == "two" != first["experiment"]
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        )
    assert {run.name: run.state_name for run in runs} == {"read": "Cached", "square": "Completed"}


def test_two_runs_at_once_do_not_disturb_each_other(checkout):
    states = {}

    def run(name: str, offset: int) -> None:
        states[name] = _run(name, overrides={"offset": offset})

    threads = [threading.Thread(target=run, args=(f"side-{offset}", offset)) for offset in (4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(state.is_completed() for state in states.values())
    assert _experiments(checkout) == {"side-4": {"score": 16}, "side-5": {"score": 25}}


@pytest.mark.slow
def test_a_name_that_is_taken_gets_the_run_s_id(checkout):
    _run("same").result()
    second = _run("same", overrides={"offset": 1}).result()
    assert second["experiment"].startswith("same-")
    assert _experiments(checkout) == {"same": {"score": 9}, second["experiment"]: {"score": 1}}


@pytest.mark.slow
def test_a_failed_run_s_workspace_stays_for_its_time(checkout):
    message = _error(_run("too-much", overrides={"offset": 99}))
    assert message.startswith("stage square: numbers.txt: got 99; expected 90 or less")
    root = checkout / workspace.WORKSPACES / "too-much"
    assert (root / "numbers.txt").read_text() == "99"
    assert "got 99" in json.loads(root.with_name("too-much.json").read_text())["reason"]
    _run("next", keep_failed_hours=1.0).result()
    assert root.exists()
    for path in (root, *root.iterdir()):
        os.utime(path, (time.time() - 3 * 3600,) * 2, follow_symlinks=False)
    _run("third", keep_failed_hours=2.0).result()
    assert not root.exists()
    assert not root.with_name("too-much.json").exists()
    assert _experiments(checkout).keys() == {"next", "third"}


def test_a_workspace_in_use_is_not_removed_nor_taken(checkout):
    with workspace.opened(checkout, "busy", "HEAD", is_retry=False):
        assert workspace.sweep(checkout, keep_hours=0.0) == []
        second = workspace.opened(checkout, "busy", "HEAD", is_retry=True)
        with pytest.raises(GanpipeError, match="a run of the name 'busy' is at work already"):
            second.__enter__()
    assert workspace.sweep(checkout, keep_hours=0.0) == ["busy"]


def test_a_retry_takes_up_the_workspace_of_its_last_try(checkout):
    with workspace.opened(checkout, "again", "HEAD", is_retry=False) as space:
        (space.root / "numbers.txt").write_text("half done")
    with workspace.opened(checkout, "again", "HEAD", is_retry=True) as space:
        assert (space.root / "numbers.txt").read_text() == "half done"
    with workspace.opened(checkout, "again", "HEAD", is_retry=False) as space:
        assert not (space.root / "numbers.txt").exists()


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"overrides": {"offset.deep": 1}}, "overrides: offset.deep: offset is no section"),
        ({"revision": "--all"}, "revision: got '--all'; expected a branch, a tag or a commit"),
        ({"place": "checkout", "overrides": {"offset": 1}}, "place: 'checkout' runs what lies in the checkout"),
        ({"place": "checkout", "uncommitted": "ignore"}, "place: 'checkout' runs what lies in the checkout"),
        ({"targets": ["raed"]}, "no stage 'raed' in dvc.yaml; did you mean 'read'"),
    ],
)
def test_parameters_that_make_no_sense(checkout, parameters, expected):
    assert expected in _error(_run("wrong", **parameters))
    assert not (checkout / ".ganpipe" / "seen.json").exists()
    assert git(checkout, "for-each-ref", "refs/exps") == ""


def test_data_that_dvc_tracks_is_there(checkout):
    (checkout / "extra").mkdir()
    (checkout / "extra" / "a.bin").write_bytes(b"tracked")
    subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", "extra"], cwd=checkout, check=True)
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "data")
    with workspace.opened(checkout, "data", "HEAD", is_retry=False) as space:
        assert (space.root / "extra" / "a.bin").read_bytes() == b"tracked"
