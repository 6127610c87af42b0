"""`ganpipe translate`: a folder of images and what a generator makes of each; and `sample` for GANs that take words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from registry_checkout import ROOT
from toy_gans import build_toy, toys

from ganpipe.cli import main

Capture = pytest.CaptureFixture[str]
NAMES = ("toy_painter", "toy_mirror", "toy_sayer", "toy_forecaster", "toy_mender")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a package of each toy GAN: no registry is needed to use them."""
    root = tmp_path_factory.mktemp("studio")
    with toys(root / "sources") as sources:
        for name in NAMES:
            build_toy(root / name, name, sources)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings["data"] |= {"shape": "crop", "enlarge": "resize", "background": "white"}
    (root / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return root


@pytest.fixture
def folder(studio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for a test; the working directory is the studio."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(studio)
    return tmp_path


def run(folder: Path, *arguments: str, model: str = "toy_painter") -> int:
    given = ["--model", f"{model}/package", "--input", str(folder / "in"), "--output", str(folder / "out")]
    return main(["translate", *given, *arguments])


def put(folder: Path, name: str, image: Image.Image, **options: Any) -> None:
    path = folder / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def plain(colour: tuple[int, ...], size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB" if len(colour) == 3 else "RGBA", size, colour)


def made(folder: Path, name: str) -> np.ndarray:
    with Image.open(folder / "out" / name) as image:
        assert image.format == "PNG"
        return np.asarray(image)


EXACT = ("--label", "0", "--set", "light=0")


def test_frames_stand_one_below_another(folder: Path, capsys: Capture) -> None:
    strip = Image.new("L", (32, 64), 10)
    strip.paste(90, (0, 32, 32, 64))
    put(folder, "film.png", strip)
    put(folder, "odd.png", Image.new("L", (5, 5)))
    assert run(folder, model="toy_forecaster") == 0
    assert "odd.png: 5 x 5 pixels; expected 2 frames, one below another" in capsys.readouterr().err
    found = made(folder, "film.png")
    assert found.shape == (48, 16)
    assert [np.unique(found[top : top + 16]).tolist() for top in (0, 16, 32)] == [[165], [90], [165]]


def test_what_is_transparent_is_completed(folder: Path, capsys: Capture) -> None:
    image = plain((200, 0, 0, 255), (32, 32))
    image.paste((0, 0, 0, 0), (8, 8, 24, 24))
    put(folder, "hole.png", image)
    put(folder, "whole.png", plain((9, 9, 9)))
    put(folder, "nothing.png", plain((0, 0, 0, 0)))
    assert run(folder, model="toy_mender") == 0
    said = capsys.readouterr().err
    assert "whole.png: no pixel is transparent; expected transparent pixels where the image is missing" in said
    assert "nothing.png: all of the image is transparent" in said
    found = made(folder, "hole.png")
    assert (found[4:12, 4:12] == 0).all()
    assert found[0].tolist() == [[200, 0, 0]] * 16


def test_every_image_of_a_folder_is_translated(folder: Path, capsys: Capture) -> None:
    """Of any format and size, upright, its transparency on the background; in subfolders, too."""
    put(folder, "red.png", plain((200, 0, 0)))
    put(folder, "deep/green.webp", plain((0, 100, 0), (31, 20)), lossless=True)
    put(folder, "half.gif", plain((9, 9, 9), (4, 4)))
    put(folder, "clear.png", plain((0, 0, 0, 0)))
    turned = Image.new("RGB", (16, 8), "black")
    turned.paste((250, 250, 250), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise: what is left comes to the top
    put(folder, "turned.jpg", turned, exif=exif, quality=100)
    (folder / "in" / "notes.txt").write_text("no image")
    assert run(folder, *EXACT) == 0
    assert capsys.readouterr().out == f"{folder / 'out'}: 5 images of toy_painter/package\n"
    names = sorted(path.relative_to(folder / "out").as_posix() for path in (folder / "out").rglob("*.*"))
    assert names == ["clear.png", "deep/green.png", "half.png", "red.png", "turned.png"]
    assert made(folder, "red.png").shape == (16, 16, 3)
    assert (made(folder, "red.png") == (55, 255, 255)).all()
    assert (made(folder, "deep/green.png") == (255, 155, 255)).all()
    assert (made(folder, "half.png") == (246, 246, 246)).all()
    assert (made(folder, "clear.png") == 0).all()
    assert made(folder, "turned.png")[:6].max() < 30 < 220 < made(folder, "turned.png")[-6:].min()


def test_shape_and_background_are_chosen(folder: Path) -> None:
    put(folder, "wide.png", plain((0, 0, 0), (16, 8)))
    assert run(folder, *EXACT, "--shape", "pad", "--background", "#ff0000") == 0
    image = made(folder, "wide.png")
    assert (image[0] == (0, 255, 255)).all()
    assert (image[8] == 255).all()
    put(folder, "wide.png", plain((0, 0, 0), (4, 4)))
    assert run(folder, *EXACT, "--enlarge", "pad", "--force") == 0
    assert (made(folder, "wide.png")[[0, -1]] == 0).all()
    assert (made(folder, "wide.png")[8, 8] == 255).all()


def test_what_cannot_be_read_gets_a_line_and_the_others_an_image(folder: Path, capsys: Capture) -> None:
    for number in range(20):
        put(folder, f"{number:02d}.png", plain((number, 0, 0)))
    (folder / "in" / "03.png").write_bytes((folder / "in" / "03.png").read_bytes()[:50])
    (folder / "in" / "20.jpg").write_bytes(b"no image")
    assert run(folder, *EXACT) == 0
    told = capsys.readouterr()
    assert told.out == (f"{folder / 'out'}: 19 images of toy_painter/package; 2 of 21 files could not be read\n")
    lines = [line for line in told.err.splitlines() if line.startswith(("03", "20"))]
    assert [line.split(": ")[0] for line in lines] == ["03.png", "20.jpg"]
    assert "not an image in any format known here" in lines[1]
    assert (made(folder, "19.png")[..., 0] == 255 - 19).all()


def test_nothing_that_can_be_read_is_an_error(folder: Path, capsys: Capture) -> None:
    (folder / "in").mkdir()
    (folder / "in" / "a.png").write_bytes(b"no image")
    assert run(folder) == 2
    assert capsys.readouterr().out.endswith("0 images of toy_painter/package; 1 of 1 file could not be read\n")


def test_one_image_may_be_named(folder: Path) -> None:
    put(folder, "red.png", plain((200, 0, 0)))
    assert run(folder, *EXACT, "--input", str(folder / "in" / "red.png")) == 0
    assert (made(folder, "red.png") == (55, 255, 255)).all()


def test_nothing_is_replaced_without_force(folder: Path, capsys: Capture) -> None:
    put(folder, "a.png", plain((0, 0, 0)))
    put(folder, "b.png", plain((0, 0, 0)))
    (folder / "out").mkdir()
    (folder / "out" / "b.png").write_bytes(b"mine")
    assert run(folder, *EXACT) == 2
    assert (
        f"--output: {folder / 'out' / 'b.png'} is there; choose another folder, or --force" in capsys.readouterr().err
    )
    assert [path.name for path in (folder / "out").iterdir()] == ["b.png"]
    assert run(folder, *EXACT, "--force") == 0
    assert (made(folder, "b.png") == 255).all()


def test_both_directions(folder: Path, capsys: Capture) -> None:
    image = Image.new("RGB", (16, 16), "black")
    image.paste((255, 255, 255), (0, 0, 16, 4))
    put(folder, "a.png", image)
    assert run(folder, model="toy_mirror") == 0
    np.testing.assert_array_equal(made(folder, "a.png"), 255 - np.asarray(image))
    assert run(folder, "--direction", "there", "--force", model="toy_mirror") == 0
    np.testing.assert_array_equal(made(folder, "a.png"), 255 - np.asarray(image))
    assert run(folder, "--direction", "back", "--force", model="toy_mirror") == 0
    np.testing.assert_array_equal(made(folder, "a.png"), np.asarray(image)[::-1])
    assert run(folder, "--direction", "bakc", "--force", model="toy_mirror") == 2
    assert "--direction: got 'bakc'; did you mean 'back'?" in capsys.readouterr().err


def test_the_label_and_codes(folder: Path) -> None:
    put(folder, "a.png", plain((255, 255, 255)))
    levels = []
    for arguments in (("--label", "noon"), ("--label", "1"), ("--label", "0"), ("--label", "0", "--set", "light=1")):
        light = () if "--set" in arguments else ("--set", "light=0.5")
        assert run(folder, *arguments, *light, "--force") == 0
        levels.append(int(made(folder, "a.png").max()))
    assert levels == [51, 51, 64, 128]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--input", "nowhere"), "--input: nowhere does not exist"),
        (("--input", "toy_mirror/package/code"), "--input: toy_mirror/package/code holds no image"),
        (("--output", "params.yaml"), "--output: params.yaml is a file; expected a folder"),
        (("--output", "params.yaml/more"), "params.yaml"),
        (("--direction", "there"), "--direction: got 'there'; the GAN 'toy_painter' of toy_painter/package has one"),
        (("--label", "noun"), "--label: there is no class 'noun'; did you mean 'noon'?"),
        (("--label", "4"), "--label: 4: expected the number of a class, 0 to 3"),
        (("--text", "a fox"), "--text: the GAN 'toy_painter' of toy_painter/package takes no words"),
        (("--set", "light"), "--set: got 'light'; expected NAME=VALUE"),
        (("--set", "lihgt=1"), "--set: there is no code 'lihgt'; did you mean 'light'?"),
        (("--set", "sketch=1"), "--set: there is no code 'sketch'"),
        (("--set", "light=2"), "--set light: got '2'; expected a number from 0 to 1"),
        (("--set", "light=bright"), "--set light: got 'bright'; expected a number from 0 to 1"),
        (("--seed", "-1"), "--seed: got -1; expected 0 to "),
        (("--truncation", "0"), "--truncation: got 0; expected a number above 0 and at most 1"),
        (("--background", "reddish"), "background"),
        (("--model", "toy_sayer/package"), "takes no image; `ganpipe sample --model ...` shows what it makes"),
    ],
)
def test_bad_options_get_one_line_and_no_file(
    folder: Path, capsys: Capture, arguments: tuple[str, ...], says: str
) -> None:
    put(folder, "a.png", plain((0, 0, 0)))
    assert run(folder, *arguments) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    assert says in said[0]
    assert not (folder / "out").exists()


def test_no_image_is_written_over(folder: Path, capsys: Capture) -> None:
    put(folder, "a.png", plain((0, 0, 0)))
    put(folder, "a.jpg", plain((0, 0, 0)))
    assert run(folder) == 2
    assert "a.jpg and a.png would both become" in capsys.readouterr().err
    assert run(folder, "--output", str(folder / "in" / "made")) == 2
    assert "lies in --input; choose a folder outside of it" in capsys.readouterr().err
    one = str(folder / "in" / "a.png")
    assert run(folder, "--input", one, "--output", str(folder / "in"), "--force") == 2
    assert "is the image itself; choose another folder" in capsys.readouterr().err


def test_sample_says_what_translates(folder: Path, capsys: Capture) -> None:
    assert main(["sample", "--model", "toy_painter/package", "--out", str(folder / "grid.png")]) == 2
    said = capsys.readouterr().err
    assert "makes images of other images (sketch); to give it your images: `ganpipe translate --model" in said


def test_sample_takes_words_and_codes(folder: Path, capsys: Capture) -> None:
    grids = []
    for arguments in (("--text", "red fox"), ("--text", "sea"), ("--text", "sea", "--set", "tilt=1")):
        out = folder / f"{len(grids)}.png"
        given = ["--model", "toy_sayer/package", "--num", "4", "--out", str(out), "--set", "stripe=2"]
        assert main(["sample", *given, *arguments]) == 0
        grids.append(out.read_bytes())
    assert len(set(grids)) == 3
    capsys.readouterr()
    for arguments, says in (
        ((), "--text is missing: the GAN 'toy_sayer' of toy_sayer/package makes images of words"),
        (("--text", "."), "--text: got 0 words; expected 1 to 3"),
        (("--text", "sae"), "--text: the model knows no word of 'sae'; did you mean 'sea'?"),
        (("--text", "one fox in the sea"), "--text: got 5 words; expected 1 to 3"),
    ):
        assert main(["sample", "--model", "toy_sayer/package", "--out", str(folder / "no.png"), *arguments]) == 2
        assert says in capsys.readouterr().err
    assert not (folder / "no.png").exists()
