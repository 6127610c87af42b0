"""`ganpipe models`, `promote`, `rollback`, `sample` and `compare`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from registry_checkout import ROOT, checkout
from registry_parts import DIGITS, NAME, Desk, build, make_gan, own_samples, tracker_in

from ganpipe.cli import main
from ganpipe.errors import EXIT_UNAVAILABLE
from ganpipe.evaluation.grids import grid
from ganpipe.evaluation.sample_grids import sample_grid
from ganpipe.serving.follower import Source

Capture = pytest.CaptureFixture[str]


def ran(capsys: Capture, *arguments: str) -> str:
    """What a command that succeeds prints."""
    code = main(list(arguments))
    told = capsys.readouterr()
    assert code == 0, told.err
    return told.out


def error_of(capsys: Capture, *arguments: str, code: int = 2) -> str:
    """The one line that a failing command prints on stderr."""
    assert main(list(arguments)) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("error: ")


# --- versions without generators


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Version 1 is champion, 2 better and challenger, 3 worse; the working directory is there."""
    return checkout(tmp_path, monkeypatch)


def test_models_lists_versions_and_why(desktop: Path, capsys: Capture) -> None:
    lines = ran(capsys, "models").splitlines()
    assert lines[0] == "tests"
    assert lines[1].split() == ["version", "aliases", "fid_x", "protocol", "gan", "data", "commit", "registered"]
    assert lines[4].split()[:7] == ["2", "@challenger", "30", "pppppppppppp", "dcgan", "mnist", "01234567"]
    assert lines[5] == "    The gate saw 30."
    assert lines[6].split()[:3] == ["1", "@champion", "40"]


def test_models_tells_what_a_version_started_from(desktop: Path, capsys: Capture) -> None:
    tracker_in(desktop).client().set_model_version_tag("tests", "3", "ganpipe.start.from", "models:/tests/1")
    lines = ran(capsys, "models").splitlines()
    assert lines[3:5] == ["    Started from models:/tests/1.", "    The gate saw 50."]
    assert not [line for line in lines[5:] if "Started" in line]
    found = json.loads(ran(capsys, "models", "--json"))["versions"]
    assert [item["start"] for item in found] == ["models:/tests/1", "", ""]


def test_models_for_programs_and_its_trail(desktop: Path, capsys: Capture) -> None:
    found = json.loads(ran(capsys, "models", "--json"))
    assert [(item["version"], item["aliases"]) for item in found["versions"]] == [
        (3, []),
        (2, ["challenger"]),
        (1, ["champion"]),
    ]
    newest = found["versions"][1]
    assert newest["page"].startswith("models:/tests/2 in sqlite:///")  # no page is up
    assert (newest["metrics"], newest["why"], newest["uri"]) == ({"fid_x": 30.0}, "The gate saw 30.", "models:/tests/2")
    assert [(move["alias"], move["to"], move["by"]) for move in found["history"]] == [
        ("champion", 1, "ada"),
        ("challenger", 2, "ada"),
    ]
    history = ran(capsys, "models", "--history")
    assert "champion: none -> version 1, registered by ada\n    the first" in history


def test_promote_and_rollback(desktop: Path, capsys: Capture) -> None:
    said = ran(capsys, "promote", "--who", "bob", "--reason", "the demo")
    assert "champion moved from version 1 to version 2." in said
    assert said.endswith("champion: models:/tests/2 (models:/tests@champion)\n")
    assert "version 2 is the champion already." in ran(capsys, "promote", "--version", "2")
    refused = error_of(capsys, "promote", "--version", "3", code=1)
    assert refused.startswith("the gate does not make version 3 of tests the champion: fid_x (lower is better): 50")
    assert refused.endswith("To do it all the same: --force --reason WHY")
    assert "moved from version 2 to version 3" in ran(capsys, "promote", "--version=3", "--force", "--reason=legal")
    assert "moved from version 3 to version 2" in ran(capsys, "rollback", "--reason", "it was a test")
    assert "moved from version 2 to version 1" in ran(capsys, "rollback")
    assert error_of(capsys, "rollback").startswith("tests: nothing to go back to: version 1 is the champion")
    history = ran(capsys, "models", "--history")
    assert "champion: version 1 -> version 2, promoted by bob" in history
    assert "Forced: legal" in history
    assert "rolled back by" in history


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["promote", "--force"], "--force: needs --reason"),
        (["promote", "--version", "9"], "tests has no version 9; versions: 1, 2, 3; aliases: challenger, champion"),
        (["promote", "--model", "test"], "has no registered model 'test'; did you mean 'tests'?"),
        (["rollback"], "nothing to go back to"),
        (["rollback", "--model", "test"], "did you mean 'tests'?"),
        (["models", "--model", "test"], "did you mean 'tests'?"),
        (["sample", "--model", "9"], "tests has no version 9"),
        (["sample", "--model", "models:/tests"], "expected models:/NAME/VERSION or models:/NAME@ALIAS"),
        (["sample", "--model", "nowhere/package"], "nowhere/package: no such folder"),
        (["sample", "--model", "."], ".: no package of ganpipe: it has no model.json"),
        (["sample", "--out", "grid.gif"], "--out: got 'grid.gif'"),
        (["sample", "--num", "0"], "--num: got 0"),
        (["sample", "--num", "20000"], "--num: got 20000; expected 1 to 10,000 in a grid"),
        (["sample", "--seed", "-1"], "--seed: got -1"),
        (["compare", "1", "2", "--num", "0"], "--num: got 0"),
        (["compare", "1", "2", "--out", "page.pdf"], "--out: got 'page.pdf'"),
    ],
)
def test_bad_values_get_one_line(desktop: Path, capsys: Capture, arguments: list[str], says: str) -> None:
    assert says in error_of(capsys, *arguments)


def test_a_server_that_is_away_gets_one_line(desktop: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for command in ("models", "promote", "rollback", "sample"):
        assert "MLflow at http://127.0.0.1:9 does not answer" in error_of(capsys, command, code=EXIT_UNAVAILABLE)


# --- a version that the gate did not take


@pytest.fixture
def unmet(tmp_path: Path, empty_registry: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose only version does not keep the gate's condition, as a first run on other data may end."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = checkout(tmp_path, monkeypatch)
    (root / "mlflow.db").unlink()
    condition = {"fid_x": {"max": 20}}
    Desk(tracker_in(root, empty_registry[0]), empty_registry[1]).register(40.0, conditions=condition)
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    params["register"]["conditions"] = condition
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return root


def test_without_a_champion_every_command_says_why_and_what_to_do(unmet: Path, capsys: Capture) -> None:
    why = "tests has no champion: its newest version is 1, and when it was registered, the gate said: "
    why += "Condition on fid_x does not hold: 40, wanted at most 20."
    for command in (["sample"], ["compare", "1", "@champion"], ["verify"], ["serve", "--port", "0"]):
        assert error_of(capsys, *command).startswith(why), command
    assert error_of(capsys, "promote").startswith(why.replace("champion", "challenger"))
    assert ran(capsys, "models").splitlines()[-1].startswith(why)
    said = error_of(capsys, "sample")
    assert "`register.conditions` in params.yaml" in said
    advice = [part.split() for part in said.split("`") if part.startswith("ganpipe ")]
    assert [words[1] for words in advice] == ["sample", "serve", "promote"]
    ran(capsys, *advice[0][1:], "--num", "4")
    assert "samples.png" in [path.name for path in unmet.iterdir()]
    assert Source.of(advice[1][-1]).number == 1
    assert "Forced: WHY" in ran(capsys, *advice[2][1:])
    assert "samples.png: 4 images of models:/tests/1" in ran(capsys, "sample", "--num", "4")


# --- versions with generators


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose version 1 is a DCGAN and the champion, and version 2 a conditional GAN."""
    root = tmp_path_factory.mktemp("studio")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracker = tracker_in(root)
        for name in ("dcgan", "cgan"):
            desk = Desk(tracker, build(root / name, name, classes=DIGITS))
            desk.register(40.0 if name == "dcgan" else 50.0)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["register"] |= {"model_name": NAME, "metric": "fid_x", "conditions": {}}
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return root


@pytest.fixture
def in_studio(studio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(studio)
    return tmp_path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_grid_of_the_champion_is_the_evaluations(in_studio: Path, capsys: Capture) -> None:
    from registry_parts import PROGRESS

    out = in_studio / "grid.png"
    said = ran(capsys, "sample", "--num", "9", "--out", str(out))
    assert said == f"{out}: 9 images of models:/tests/1, seeds 0 to 8\n"
    expected = np.asarray(sample_grid(make_gan("dcgan"), PROGRESS, 9)).astype(int)
    assert np.abs(pixels(out).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("model", ["models:/tests/2", "models:/tests@challenger", "2", "@challenger", "cgan/package"])
def test_a_label_and_a_seed_from_any_place(in_studio: Path, capsys: Capture, model: str) -> None:
    out = in_studio / "new" / "grid.png"
    options = ["--num", "4", "--seed", "7", "--label", "3", "--truncation", "0.7", "--out", str(out)]
    assert "seeds 7000000 to 7000003" in ran(capsys, "sample", "--model", model, *options)
    images_NHWC = own_samples(make_gan("cgan"), [7_000_000 + row for row in range(4)], [3] * 4, 0.7).numpy()
    np.testing.assert_array_equal(pixels(out), np.asarray(grid(images_NHWC.transpose(0, 3, 1, 2))))


def test_a_label_by_its_name(in_studio: Path, capsys: Capture) -> None:
    by_name, by_number = in_studio / "name.png", in_studio / "number.png"
    options = ["--model", "2", "--num", "4"]
    said = ran(capsys, "sample", *options, "--label", "digit three", "--out", str(by_name))
    assert said == f"{by_name}: 4 images of models:/tests/2, class 3 (digit three), seeds 0 to 3\n"
    ran(capsys, "sample", *options, "--label", "3", "--out", str(by_number))
    assert by_name.read_bytes() == by_number.read_bytes()


def test_a_version_without_names_takes_numbers(studio: Path, in_studio: Path, capsys: Capture) -> None:
    import shutil

    package = shutil.copytree(studio / "cgan" / "package", in_studio / "package")
    description: dict[str, Any] = json.loads((package / "model.json").read_text())
    description["names"] = {}  # as in versions that were registered before
    (package / "model.json").write_text(json.dumps(description))
    options = ["sample", "--model", str(package), "--out", str(in_studio / "grid.png")]
    assert "does not hold the classes' names" in error_of(capsys, *options, "--label", "digit three")
    assert "class 3, seeds" in ran(capsys, *options, "--label", "3")


def test_single_images_into_a_folder(in_studio: Path, capsys: Capture) -> None:
    ran(capsys, "sample", "--model", "2", "--num", "300", "--label", "5", "--out", str(in_studio / "many"))
    files = sorted((in_studio / "many").iterdir())
    assert (len(files), files[0].name, files[-1].name) == (300, "000.png", "299.png")
    expected = own_samples(make_gan("cgan"), [299], [5]).numpy()[0, :, :, 0]
    assert np.abs(pixels(files[-1]).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "1", "--label", "3"], "--label: the GAN 'dcgan' of models:/tests/1 takes no labels"),
        (["--model", "2", "--label", "10"], "--label: 10: expected the number of a class, 0 to 9"),
        (["--model", "2", "--label", "-1"], "--label: there is no class '-1'; "),
        (["--model", "2", "--label", "three"], "--label: there is no class 'three'; did you mean 'digit three'?"),
        (["--model", "2", "--truncation", "0"], "truncation is 0.0, expected a number above 0 and at most 1"),
        (["--truncation", "nan"], "truncation is nan, expected a number above 0 and at most 1"),
    ],
)
def test_bad_samples_get_one_line_and_no_file(
    in_studio: Path, capsys: Capture, arguments: list[str], says: str
) -> None:
    assert says in error_of(capsys, "sample", *arguments, "--out", str(in_studio / "no" / "grid.png"))
    assert list(in_studio.iterdir()) == []


def test_a_damaged_package_is_named(studio: Path, in_studio: Path, capsys: Capture) -> None:
    import shutil

    package = shutil.copytree(studio / "cgan" / "package", in_studio / "package")
    (package / "generator.safetensors").write_bytes(b"no weights")
    assert "the model is damaged" in error_of(capsys, "sample", "--model", str(package))
    (package / "model.json").write_text("{")
    assert error_of(capsys, "sample", "--model", str(package)).startswith(f"{package}: ")


@pytest.mark.parametrize("command", [["sample"], ["compare", "1", "2"]])
def test_a_place_for_the_output_is_looked_at_before_any_work(
    in_studio: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr("ganpipe.registry.open_model.load", pytest.fail)  # no generator is opened
    suffix = {"sample": ".png", "compare": ".html"}[command[0]]
    (in_studio / "file").write_text("kept")
    folder = f"is a file; expected a name that ends in {suffix}, or a folder"
    for out, says in {
        in_studio / "file": folder,
        Path("/dev/full"): folder,
        in_studio / "file" / f"x{suffix}": "Not a directory; choose another place",
        in_studio / f"{'x' * 300}{suffix}": "File name too long; choose another place",
        in_studio / "page.doc": f"expected a name that ends in {suffix}, or a folder",
    }.items():
        said = error_of(capsys, *command, "--num", "4", "--out", str(out))
        assert said.startswith("--out: ")
        assert says in said
    assert [path.name for path in in_studio.iterdir()] == ["file"]
    assert (in_studio / "file").read_text() == "kept"


@pytest.mark.parametrize(("command", "suffix"), [(["sample"], ".png"), (["compare", "1", "2"], ".html")])
def test_an_output_replaces_a_file_as_a_whole_and_follows_links(
    in_studio: Path, capsys: Capture, command: list[str], suffix: str
) -> None:
    target, link = in_studio / f"old{suffix}", in_studio / f"link{suffix}"
    target.write_text("old")
    link.symlink_to(target)
    ran(capsys, *command, "--num", "4", "--out", str(link))
    assert link.is_symlink()
    assert target.stat().st_size > 100
    full = in_studio / f"full{suffix}"
    full.symlink_to("/dev/full")
    said = error_of(capsys, *command, "--num", "4", "--out", str(full))
    assert said == f"{full}: cannot be written: No space left on device"
    assert sorted(path.name for path in in_studio.iterdir()) == sorted([target.name, link.name, full.name])


def test_compare_two_versions(in_studio: Path, capsys: Capture) -> None:
    said = ran(capsys, "compare", "1", "@challenger", "--num", "9", "--out", str(in_studio / "pair"))
    lines = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    assert lines["fid_x"] == ["fid_x", "3", "3"]  # as the packages say
    assert lines["gan"] == ["gan", "dcgan", "cgan"]
    assert lines["config.label_width"][1:] == ["-", "8"]
    assert "warning" not in said
    both = pixels(in_studio / "pair" / "samples.png")
    ran(capsys, "sample", "--model", "1", "--num", "9", "--out", str(in_studio / "one.png"))
    one = pixels(in_studio / "one.png")
    np.testing.assert_array_equal(both[: one.shape[0], : one.shape[1], 0], one)
    page = (in_studio / "pair" / "comparison.html").read_text(encoding="utf-8")
    assert "<td>gan</td><td>dcgan</td><td>cgan</td>" in page
    assert 'src="data:image/png;base64,' in page


def test_compare_warns_where_protocols_differ(studio: Path, in_studio: Path, capsys: Capture) -> None:
    import shutil

    package = shutil.copytree(studio / "cgan" / "package", in_studio / "package")
    description: dict[str, Any] = json.loads((package / "model.json").read_text())
    description["protocol"] = {"seed": 1}
    description["metrics"] = {"fid_x": 1.0}
    (package / "model.json").write_text(json.dumps(description))
    page = in_studio / "page.html"
    said = ran(capsys, "compare", str(package), "2", "--num", "2", "--out", str(page))
    assert "warning: the numbers were measured under different protocols and do not compare: seed (1 / 0)" in said
    assert [line.split() for line in said.splitlines() if line.startswith("fid_x")] == [["fid_x", "1", "3"]]
    assert '<p class="warning">' in page.read_text(encoding="utf-8")
