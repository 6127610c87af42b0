"""A champion that makes other images than the generator that is to replace it: real packages in a real MLflow."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from damaged_registry import copied
from manifest_parts import of_images
from PIL import Image
from registry_checkout import ROOT
from registry_parts import FACTS, NAME, Desk, make_gan, tracker_in, write_trained

from ganpipe import gans
from ganpipe.cli import main
from ganpipe.data.shards.manifest import Manifest, Shard
from ganpipe.gans.base import DataSpec
from ganpipe.packaging.output_shape import SHAPE_TAG, Shape, digest_of_names, incompatibility, shape_of
from ganpipe.packaging.package import build_package
from ganpipe.registry.gate import NotComparable
from ganpipe.stages.evaluate import require_fitting

Capture = pytest.CaptureFixture[str]
WHY = "the champion makes 16 px, 1 channel, 10 classes; version 2 makes 32 px, 1 channel, 10 classes"


@pytest.mark.parametrize(
    ("champion", "other", "why"),
    [
        (Shape(32, 3, 2, False), Shape(32, 3, 3, True), ""),  # it is told no class: it can be measured on any
        (Shape(32, 3, 2, False, "aa"), Shape(32, 3, 2, True, "bb"), ""),
        (Shape(32, 3, 2, True, "aa"), Shape(32, 3, 2, False, "aa"), ""),
        (Shape(32, 3, 2, True), Shape(32, 3, 2, True, "bb"), ""),  # registered when names were not kept
        (
            Shape(32, 3, 2, True),
            Shape(64, 3, 2, True),
            "the champion makes 32 px, 3 channels, 2 classes; it makes 64 px, 3 channels, 2 classes",
        ),
        (
            Shape(32, 3, 0, False),
            Shape(32, 1, 0, False),
            "the champion makes 32 px, 3 channels, no classes; it makes 32 px, 1 channel, no classes",
        ),
        (
            Shape(32, 3, 2, True),
            Shape(32, 3, 3, True),
            "the champion makes 32 px, 3 channels, 2 classes; it makes 32 px, 3 channels, 3 classes",
        ),
        (
            Shape(32, 3, 1, True, "aa"),
            Shape(32, 3, 1, True, "bb"),
            "the champion makes 32 px, 3 channels, 1 class; the 1 classes of it have other names",
        ),
    ],
)
def test_what_keeps_two_from_being_compared(champion: Shape, other: Shape, why: str) -> None:
    assert incompatibility(champion, other, "it") == why


def test_names_of_classes_tell_in_their_order() -> None:
    assert digest_of_names(["cat", "dog"]) != digest_of_names(["dog", "cat"])
    assert digest_of_names([]) == ""


@pytest.mark.parametrize(
    ("spec", "conditional", "fits"),
    [
        (DataSpec.images(16, 1, 2), True, True),
        (DataSpec.images(16, 1, 3), False, True),
        (DataSpec.images(16, 1, 3), True, False),
        (DataSpec.images(32, 1, 2), False, False),
        (DataSpec.images(16, 3, 2), False, False),
    ],
)
def test_a_generator_is_measured_only_on_data_like_its_own(spec: DataSpec, conditional: bool, fits: bool) -> None:
    """Else its samples and the data's images do not go into one picture, or it is asked for a class it never saw."""
    here = Manifest(
        source="folder",
        description="",
        licence="",
        shards=(Shard(name="train-000000.tar", sha256="0" * 64, num_bytes=10240, num_samples=2, split="train"),),
        **of_images(16, 1, ("left", "right")),
    )
    gan_class = gans.load("cgan" if conditional else "gan")
    gan = gan_class(gan_class.Config(), spec)
    if fits:
        require_fitting(gan, here)
    else:
        with pytest.raises(NotComparable, match="the data in artifacts/shards have (16 px, 1 channel|2 classes)"):
            require_fitting(gan, here)


# --- two versions


def package(folder: Path, image_size: int) -> Path:
    write_trained(make_gan("gan", image_size=image_size), "gan", folder / "train")
    build_package(folder / "train", folder / "package", FACTS)
    return folder / "package"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {size: package(tmp_path_factory.mktemp(f"of{size}"), size) for size in (16, 32)}


@pytest.fixture(scope="module")
def original(packages: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 makes 16 px and is the champion."""
    root = tmp_path_factory.mktemp("original") / "registry"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert Desk(tracker_in(root), packages[16]).register(40.0).aliases == ["challenger", "champion"]
    return root


@pytest.fixture
def desk(original: Path, packages: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """What is registered next makes 32 px."""
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GANPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(copied(original, tmp_path / "registry"))
    return Desk(tracker_in(tmp_path / "registry"), packages[32])


def write_params(root: Path, **register: Any) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["register"] |= {"model_name": NAME, "experiment": "tests", "metric": "fid_x", "conditions": {}}
    params["register"] |= {"require_commit": False, **register}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


OUTCOMES = {
    "refuse": ([], 1, "so version 2 gets no alias"),
    "challenger": (["challenger"], 1, "so the champion stays"),
    "replace": (["challenger", "champion"], 2, "so version 2 replaces it"),
}


def test_the_setting_decides(desk: Desk) -> None:
    bounds = {"recall": {"min": 0.9}}
    failed = desk.register(30.0, protocol="q" * 64, not_comparable="replace", conditions=bounds)
    assert (failed.aliases, failed.champion, failed.created) == ([], 1, True)
    assert failed.decision.reasons[-1] == "version 2 stays as it is, because a condition does not hold."
    for chosen, (aliases, champion, outcome) in OUTCOMES.items():
        done = desk.register(30.0, protocol="q" * 64, not_comparable=chosen)
        assert (done.version, done.aliases, done.champion) == (2, aliases, champion)
        assert done.decision.reasons[0] == f"Not comparable: {WHY}. register.not_comparable is {chosen}, {outcome}."
    assert desk.rescored == []


def test_its_shape_is_read_from_the_tag_and_else_from_its_files(desk: Desk) -> None:
    version = desk.client.get_model_version(NAME, "1")
    assert SHAPE_TAG not in version.tags  # as earlier ganpipe registered
    assert shape_of(desk.tracker, version) == Shape(16, 1, 10, False)
    known = Shape(16, 1, 10, True, "aa")
    desk.client.set_model_version_tag(NAME, "1", *known.tag.popitem())
    assert shape_of(desk.tracker, desk.client.get_model_version(NAME, "1")) == known
    desk.client.set_model_version_tag(NAME, "1", SHAPE_TAG, "[]")
    shutil.rmtree(Path(desk.tracker.artifact_dir or ""))
    assert shape_of(desk.tracker, desk.client.get_model_version(NAME, "1")) is None


def test_what_the_decision_advises_makes_it_the_champion(desk: Desk, capsys: Capture) -> None:
    done = desk.register(30.0, protocol="q" * 64)
    write_params(Path.cwd())
    advised = re.findall(r"`(ganpipe [^`]+)`", done.decision.text)
    assert advised == ["ganpipe promote --version 2 --force --reason WHY"]
    capsys.readouterr()
    assert main(["promote"]) == 1  # nothing is measured, and no shards are needed to say so
    told = capsys.readouterr().err
    assert told.startswith(f"error: the gate does not make version 2 of tests the champion: Not comparable: {WHY}.")
    assert main(shlex.split(advised[0])[1:]) == 0
    assert "champion moved from version 1 to version 2." in capsys.readouterr().out
    assert main(["rollback"]) == 0
    write_params(Path.cwd(), not_comparable="replace")
    assert main(["promote", "--version", "2"]) == 0
    assert main(["compare", "1", "2", "--num", "4", "--out", "pair"]) == 0
    assert "data.fields.image.size" in capsys.readouterr().out
    with Image.open("pair/samples.png") as picture:
        assert picture.height > 64


def test_check_foresees_it(desk: Desk, capsys: Capture) -> None:
    """MNIST at 32 px is to come."""
    for chosen in OUTCOMES:
        write_params(Path.cwd(), not_comparable=chosen, metric="fid_efficientnet_lite0")
        capsys.readouterr()
        assert main(["check"]) == (2 if chosen == "refuse" else 0)
        told = capsys.readouterr().err
        begin = "error" if chosen == "refuse" else "warning"
        assert told.startswith(
            f"{begin}: register: not comparable: {WHY.replace('version 2', 'this run')}. register.not_comparable is "
            f"{chosen}: "
        )
        assert len(told.splitlines()) == 1


def test_check_makes_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("GANPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, metric="fid_efficientnet_lite0")
    assert main(["check"]) == 0
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "mlflow.db").exists()
