"""A finished training that is made longer goes on from its end, to the bytes of a long one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from projects import Project, make_project

from ganpipe import gans, services
from ganpipe.stages.dvc_store import locked_content
from ganpipe.stages.longer import depends_on_length
from ganpipe.tracking.runs import Tracker
from ganpipe.training.settings import TrainSettings

GENERATOR = Path("artifacts/train/generator.safetensors")


def repro(project: Project, num_images: int, **further: Any) -> str:
    project.set("train.num_images", num_images)
    for key, value in further.items():
        project.set(f"train.{key}", value)
    project.commit(f"{num_images} images")
    try:
        return project.dvc("repro", "train")
    finally:
        services.stop(project.root)


def recorded_grids(project: Project, run_key: str) -> set[str]:
    """The sample grids in a training's MLflow run."""
    tracker = Tracker.at(project.root, "ganpipe")
    client = tracker.client()
    (run,) = [run for run in client.search_runs([tracker.experiment_id(client)]) if run_key in run.data.tags.values()]
    return {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "samples")}


@pytest.mark.slow
def test_a_longer_training_goes_on_here_and_on_another_host(tmp_path: Path) -> None:
    first = make_project(tmp_path / "first")
    first.set("tune.num_trials", 0)
    first.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    assert "going on" not in repro(first, 480)
    first.dvc("push")
    subprocess.run(["git", "add", "--force", "dvc.lock"], cwd=first.root, check=True)
    first.commit("480 images, done")
    elsewhere = first.copy(tmp_path / "elsewhere")
    shutil.rmtree(elsewhere.root / ".dvc" / "cache")
    shutil.rmtree(elsewhere.root / "artifacts" / "train")
    at_once = first.copy(tmp_path / "at-once")
    at_once.set("train.keep_state", False)
    (at_once.root / "dvc.lock").unlink()
    assert "going on" not in repro(at_once, 960)
    told = (
        "the last training was the same up to 480 images: going on from there, to the bytes of a training of 960 images"
    )
    for longer in (first, elsewhere):
        said = repro(longer, 960)
        assert told in said
        assert (longer.root / GENERATOR).read_bytes() == (at_once.root / GENERATOR).read_bytes()
        model = json.loads((longer.root / "artifacts/train/model.json").read_text())
        assert model["progress"]["images_seen"] == model["trained_images"] == 960
        grids = [{path.name for path in (one.root / "artifacts/train/samples").iterdir()} for one in (longer, at_once)]
        assert grids[0] == grids[1] == recorded_grids(longer, model["run_key"])
    assert (at_once.root / "artifacts/train/state.pt").read_bytes() == b""
    said = repro(at_once, 1440)
    assert "this one starts anew, because artifacts/train/state.pt of then is not there" in said
    said = repro(first, 1440, schedule={"kind": "linear"})
    assert "going on" not in said  # another training
    said = repro(first, 1920)
    assert "up to 1,440 images; this one starts anew, because its learning rates (train.schedule) depend on" in said


def test_what_dvc_lock_names_is_found_in_the_cache_and_in_the_remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "repo"
    root.mkdir()
    monkeypatch.chdir(root)
    makes = "echo first > out.txt && mkdir pictures && echo one > pictures/1.png"
    (root / "dvc.yaml").write_text(f"stages:\n  one:\n    cmd: {makes}\n    outs: [out.txt, pictures]\n")
    assert locked_content(Path("out.txt")) is None  # no DVC here yet
    subprocess.run(["git", "init", "--quiet"], check=True)
    for words in (["init"], ["remote", "add", "--default", "store", str(tmp_path / "store")], ["repro"], ["push"]):
        subprocess.run([sys.executable, "-m", "dvc", *words, "--quiet"], check=True)
    assert locked_content(Path("out.txt")) == b"first\n"
    shutil.rmtree(root / "pictures")
    assert locked_content(Path("pictures"), "1.png") == b"one\n"
    assert locked_content(Path("pictures"), "2.png") is None
    (root / "out.txt").unlink()
    assert locked_content(Path("out.txt")) == b"first\n"
    (root / "out.txt").write_text("another\n")
    shutil.rmtree(root / ".dvc" / "cache")
    assert locked_content(Path("out.txt")) == b"first\n"
    assert locked_content(Path("pictures"), "1.png") == b"one\n"
    shutil.rmtree(tmp_path / "store")
    assert locked_content(Path("out.txt")) is None
    assert locked_content(Path("other.txt")) is None


def test_a_schedule_or_a_gan_with_stages_depends_on_the_length() -> None:
    assert depends_on_length("dcgan", TrainSettings()) == ""
    for values in ({"patience_images": 5}, {"select": "best"}):
        assert "choose among all" in depends_on_length("dcgan", TrainSettings.model_validate(values))
    assert "train.schedule" in depends_on_length("dcgan", TrainSettings(schedule={"warmup": 0.1}))  # type: ignore[arg-type]
    assert "progan" in depends_on_length("progan", TrainSettings())


@pytest.mark.parametrize("name", gans.names())
def test_a_gan_whose_code_asks_for_the_share_that_is_done_says_so(name: str) -> None:
    """Its own file and those of the classes that it derives from."""
    gan = gans.load(name)
    modules = {one.__module__ for one in gan.__mro__ if one.__module__.startswith("ganpipe.gans.")}
    files = [Path(sys.modules[module].__file__ or "") for module in modules]
    texts = [file.read_text() for file in files if file.name != "base.py"]
    asks = any(asked in text for text in texts for asked in ("progress.fraction", "decaying("))
    assert gan.depends_on_length == asks
