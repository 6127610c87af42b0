"""A run whose data get another shape than the champion's, by DVC; and whether the advice of an empty registry helps."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import Project, make_project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A conditional GAN at 16 px on two classes is the champion."""
    project = make_project(tmp_path_factory.mktemp("shapes") / "project")
    for key, value in {"train.gan": "cgan", "train.num_images": 320, "tune.num_trials": 0}.items():
        project.set(key, value)
    project.set("gans.cgan.generator_width", 32)
    project.set("gans.cgan.latent_width", 32)
    project.set("gans.cgan.label_width", 32)
    try:
        project.dvc("repro")
        yield project
    finally:
        project.run("ganpipe", "down")  # the Ray that its stages started


def test_one_more_class(trained: Project) -> None:
    images = sorted((trained.root / "images" / "left").iterdir())[:20]
    (trained.root / "images" / "middle").mkdir()
    for path in images:
        shutil.copy(path, trained.root / "images" / "middle" / f"other-{path.name}")
    classes = "the champion makes 16 px, 1 channel, 2 classes; {} makes 16 px, 1 channel, 3 classes"
    assert f"warning: register: not comparable: {classes.format('this run')}" in said(trained, "check")
    trained.dvc("repro")
    summary = said(trained, "summary")
    assert "models:/ganpipe-mnist/2 @challenger" in summary
    assert "the champion is version 1" in summary
    assert f"Not comparable: {classes.format('version 2')}. register.not_comparable is challenger" in said(
        trained, "models"
    )
    refused = trained.run("ganpipe", "promote", code=1)
    assert f"Not comparable: {classes.format('version 2')}" in refused


def test_another_size(trained: Project) -> None:
    """The champion is still the first one."""
    trained.set("data.image_size", 32)
    trained.set("register.not_comparable", "replace")
    trained.dvc("repro")
    assert "models:/ganpipe-mnist/3 @challenger @champion" in said(trained, "summary")
    assert "data.fields.image.size" in said(trained, "compare", "1", "@champion", "--out", "pair.html")
    # Back to what the first champion was made from: it is the one that fits no longer.
    assert "champion moved from version 3 to version 1" in said(trained, "rollback")
    # The setting decides in `promote`, too.
    trained.set("register.not_comparable", "challenger")
    assert "Not comparable: the champion makes 16 px" in trained.run("ganpipe", "promote", "--version", "2", code=1)
    trained.set("register.not_comparable", "replace")  # as the stages were made with
    assert "champion moved from version 1 to version 2" in said(trained, "promote", "--version", "2")


def test_advice_of_an_empty_registry_helps(trained: Project) -> None:
    """Every stage is up to date, so `dvc repro` runs none, and the registry is a new one."""
    (trained.root / "mlflow.db").unlink()
    shutil.rmtree(trained.root / "mlartifacts")
    for command in (["models"], ["sample"], ["compare", "1", "2"], ["promote"], ["rollback"], ["verify"], ["models"]):
        error = trained.run("ganpipe", *command, code=2)
        assert "`make run` makes the first one; where it has nothing to do" in error
    assert "didn't change, skipping" in trained.dvc("repro")  # what `make run` does: nothing
    advised = re.findall(r"`(dvc [^`]+)`", trained.run("ganpipe", "models", code=2))
    assert set(advised) == set(re.findall(r"`(dvc repro [^`]+)`", said(trained, "summary")))
    trained.run(*shlex.split(advised[0]))
    assert "@challenger @champion" in said(trained, "summary")
    assert "samples.png: 64 images of models:/ganpipe-mnist/1" in said(trained, "sample")
    assert Path(trained.root / "samples.png").is_file()


def said(project: Project, *command: str) -> str:
    """What a command that succeeds prints, its warnings included."""
    return project.run("sh", "-c", f"ganpipe {shlex.join(command)} 2>&1")
