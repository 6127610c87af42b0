"""`ganpipe explore` as it is typed: its files, its place in MLflow and on the report, one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from exploring_parts import cell, explored, shape
from PIL import Image
from registry_checkout import ROOT
from registry_parts import DIGITS, NAME, Desk, build, tracker_in
from toy_gans import build_toy, toys

from ganpipe import exploring
from ganpipe.cli import main
from ganpipe.params import load_params
from ganpipe.reporting.gather import gather
from ganpipe.reporting.page import render
from ganpipe.tracking.runs import Tracker

Capture = pytest.CaptureFixture[str]


def ran(capsys: Capture, *arguments: str) -> list[str]:
    """The lines that a command that succeeds prints."""
    code = main(["explore", *arguments])
    told = capsys.readouterr()
    assert code == 0, told.err
    return told.out.splitlines()


def error_of(capsys: Capture, *arguments: str) -> str:
    """The one line that a failing command prints on stderr."""
    assert main(["explore", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("error: ")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose version 1 is a DCGAN and the champion, and version 2 a conditional GAN; packages of toys."""
    root = tmp_path_factory.mktemp("studio")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracker = Tracker.at(root, "ganpipe")
        for name in ("dcgan", "cgan"):
            Desk(tracker, build(root / name, name, classes=DIGITS)).register(40.0 if name == "dcgan" else 50.0)
    with toys(root / "sources") as sources:
        for name in ("toy_sayer", "toy_mirror"):
            build_toy(root / name, name, sources)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["register"] |= {"model_name": NAME, "metric": "fid_x", "conditions": {}}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return root


@pytest.fixture
def out(studio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own; the working directory is the studio."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(studio)
    return tmp_path


def test_the_champion_is_explored_kept_and_shown(studio: Path, out: Path, capsys: Capture) -> None:
    options = ["--seeds", "4,7", "--steps", "3"]
    lines = ran(capsys, "interpolation", *options)
    folder = Path("artifacts/explore/interpolation")
    assert lines[:2] == [str(folder / "interpolation.png"), str(folder / "about.json")]
    client = tracker_in(studio).client()
    run_id = client.get_model_version(NAME, "1").run_id
    assert lines[2] == f"MLflow   explore/interpolation of the run {run_id} of models:/tests/1"
    content = (folder / "interpolation.png").read_bytes()
    assert shape(content) == (1, 3)
    kept = client.download_artifacts(run_id, "explore/interpolation/interpolation.png", str(out))
    assert Path(kept).read_bytes() == content
    assert json.loads((folder / "about.json").read_text()) == {
        "model": "models:/tests/1",
        "options": {"seeds": "4,7", "space": "z", "steps": 3, "truncation": 1.0},
    }
    ran(capsys, "interpolation", *options, "--model", "dcgan/package", "--out", str(out / "again"))
    assert (out / "again" / "interpolation.png").read_bytes() == content

    ran(capsys, "film", "--seconds", "0.5")
    report = gather(studio, load_params(studio / "params.yaml"))
    tells = exploring.load("interpolation").tells
    assert [(figure.title, figure.of) for figure in report.explorations] == [
        ("Film", "models:/tests/1"),
        ("Interpolation", "models:/tests/1"),
    ]
    page = render(report)
    assert '<h2 id="explorations-title">Explorations</h2>' in page
    assert f"{tells}. Of <code>models:/tests/1</code>. <code>{folder}/interpolation.png</code>" in page
    assert 'src="data:image/gif;base64,' in page
    assert not [item for item in report.missing if item.part.startswith("explore")]
    (studio / folder / "interpolation.png").write_bytes(b"no picture")
    report = gather(studio, load_params(studio / "params.yaml"))
    (missing,) = [item for item in report.missing if item.part.startswith("explore")]
    assert missing.text.endswith("; `ganpipe explore interpolation` makes it anew")


def test_without_explorations_the_report_has_no_such_section(out: Path, studio: Path) -> None:
    (out / "params.yaml").write_bytes((studio / "params.yaml").read_bytes())
    report = gather(out, load_params(out / "params.yaml"))
    assert report.explorations == []
    assert "Explorations" not in render(report)


def test_a_class_and_words_are_given_to_all_images(out: Path, studio: Path, capsys: Capture) -> None:
    ran(capsys, "interpolation", "--model", "2", "--label", "digit three", "--seeds", "4,7", "--out", str(out / "a"))
    found = (out / "a" / "interpolation.png").read_bytes()
    subject = explored(studio / "cgan" / "package", given={"label": 3})
    for column, seed in ((0, 4), (9, 7)):
        assert np.abs(cell(found, 0, column) - subject.samples([seed])[0, 0]).max() <= 1
    model = ["--model", "toy_sayer/package"]
    lines = ran(capsys, "traversal", *model, "--text", "red fox", "--code", "stripe", "--out", str(out / "b"))
    assert lines[-1] == "MLflow   not logged: toy_sayer/package is no version in the registry"
    assert shape((out / "b" / "traversal.png").read_bytes()) == (3, 3)
    assert error_of(capsys, "traversal", *model).startswith("--text is missing")


def test_where_mlflow_keeps_nothing_the_pictures_are_written(
    out: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def away(*arguments: object) -> None:
        raise OSError("the store is away")

    monkeypatch.setattr(MlflowClient, "log_artifacts", away)
    monkeypatch.setattr("ganpipe.commands.explore._PATIENCE_SECONDS", 0.0)
    lines = ran(capsys, "truncation", "--steps", "2", "--out", str(out / "kept"))
    assert lines[-1].startswith("MLflow   not logged: MLflow at sqlite:///")
    assert "the store is away" in lines[-1]
    assert (out / "kept" / "truncation.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the kind of exploration is missing: `ganpipe explore KIND`; valid names: arithmetic, directions, film"),
        (["--model", "1"], "the kind of exploration is missing"),
        (["flim"], "there is no exploration named 'flim'; did you mean 'film'?"),
        (["film", "--truncation", "0"], "--truncation: got 0; expected a number above 0 and at most 1"),
        (["film", "--truncation", "nan"], "--truncation: got nan"),
        (["film", "--out", "params.yaml"], "--out: params.yaml is a file; expected a folder"),
        (["film", "--out", "params.yaml/deep"], "params.yaml is a file; expected a folder"),
        (["film", "--model", "9"], "tests has no version 9"),
        (["film", "--label", "3"], "--label: the GAN 'dcgan' of models:/tests/1 takes no labels"),
        (["film", "--model", "2", "--label", "10"], "--label: 10: expected the number of a class, 0 to 9"),
        (["film", "--model", "toy_sayer/package", "--text", "fox", "--set", "tilt=2"], "--set tilt: got '2'"),
        (["film", "--model", "toy_mirror/package"], "makes images of other images (a), not of latents"),
        (["styles"], "the GAN 'dcgan' of models:/tests/1 has no styles"),
        (["swap", "--with", "2"], "the GAN 'cgan' of models:/tests/2 is of another family"),
        (["swap", "--with", "9"], "tests has no version 9"),
        (["projection", "--image", "params.yaml"], "--image: params.yaml: not an image in any format known here"),
    ],
)
def test_bad_input_gets_one_line_and_no_file(out: Path, capsys: Capture, arguments: list[str], says: str) -> None:
    place = ["--out", str(out / "no")] if len(arguments) and "--out" not in arguments else []
    assert says in error_of(capsys, *arguments, *place)
    assert list(out.iterdir()) == []


def test_an_image_has_limits(out: Path, capsys: Capture) -> None:
    """Those of ingest."""
    params = Path("params.yaml").read_text(encoding="utf-8")
    Image.new("L", (300, 300)).save(out / "large.png")
    try:
        Path("params.yaml").write_text(params.replace("max_pixels: 67108864", "max_pixels: 10000"), encoding="utf-8")
        said = error_of(capsys, "projection", "--image", str(out / "large.png"))
    finally:
        Path("params.yaml").write_text(params, encoding="utf-8")
    assert said == f"--image: {out / 'large.png'}: 300 x 300 = 90,000 pixels, more than data.max_pixels = 10,000"


def test_help_names_the_kinds_and_each_kind_says_what_it_shows(capsys: Capture) -> None:
    for arguments, said in (
        (["--help"], f"one of {', '.join(exploring.names())}"),
        (["film", "--help"], "usage: ganpipe explore film [-h] [--model MODEL] [--out DIR]"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["explore", *arguments])
        assert ended.value.code == 0
        assert said in " ".join(capsys.readouterr().out.split())
    for kind in exploring.names():
        assert exploring.load(kind).tells
