"""Generators that are given images, words and codes: what rows may hold, and what is said of rows that may not."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow_parts import ask, model_server
from picture_parts import png, with_header
from PIL import Image, PngImagePlugin
from toy_gans import SOURCES, build_toy, toy, toys

from ganpipe import gans
from ganpipe.errors import GanpipeError
from ganpipe.fields import Picture
from ganpipe.gans.base import DataSpec
from ganpipe.packaging import served_model
from ganpipe.packaging.package import save_model, signature
from ganpipe.packaging.served_model import Generator, ServedGan, package_files

GREY = {"kind": "image", "size": 8, "channels": 1}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    root = tmp_path_factory.mktemp("toys")
    with toys(root) as sources:
        yield {name: build_toy(root / name, name, sources) for name in SOURCES}


@pytest.fixture(scope="module")
def painter(packages: dict[str, Path]) -> Generator:
    return Generator(package_files(packages["toy_painter"]), "cpu")


@pytest.fixture(scope="module")
def mirror(packages: dict[str, Path]) -> Generator:
    return Generator(package_files(packages["toy_mirror"]), "cpu")


@pytest.fixture(scope="module")
def sayer(packages: dict[str, Path]) -> Generator:
    return Generator(package_files(packages["toy_sayer"]), "cpu")


def sketch(mode: str = "RGB", size: int = 8, seed: int = 0) -> Image.Image:
    """Random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def negative(image: Image.Image, size: int) -> np.ndarray:
    pixels_HWC = 255 - np.asarray(image.convert("RGB"))
    return pixels_HWC.repeat(size // image.width, 0).repeat(size // image.width, 1)


def test_an_image_of_a_row_is_what_the_network_sees(painter: Generator) -> None:
    image = sketch()
    frame = pd.DataFrame({"sketch": [png(image), base64.b64encode(png(image)).decode()], "label": 0, "light": 0.0})
    for made in painter.rows(frame):
        np.testing.assert_array_equal(made, negative(image, 16))


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "PA"])
def test_other_ways_to_write_the_same_pixels_are_the_same(painter: Generator, mode: str) -> None:
    """A palette, grey, and opacity throughout."""
    image = sketch("L").convert(mode) if mode == "LA" else sketch().convert("P" if mode == "PA" else mode)
    frame = pd.DataFrame({"sketch": [png(image)], "label": [0], "light": [0.0]})
    np.testing.assert_array_equal(painter.rows(frame)[0], negative(image, 16))


def test_grey_in_an_rgb_png_is_grey() -> None:
    image = sketch("L")
    found = served_model._picture("sketch", 0, png(image.convert("RGB")), GREY)
    np.testing.assert_array_equal(found[0], np.asarray(image))


def _transparent() -> bytes:
    image = sketch("RGBA")
    image.putpixel((3, 3), (1, 2, 3, 254))
    return png(image)


def _transparent_colour() -> bytes:
    return png(sketch(), transparency=sketch().getpixel((2, 2)))


def _animated() -> bytes:
    return png(sketch(), save_all=True, append_images=[sketch(seed=1)])


def _in(kind: str) -> bytes:
    file = io.BytesIO()
    sketch().save(file, kind)
    return file.getvalue()


def _text_bomb() -> bytes:
    """A text of 64 MiB in some 64 KB."""
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 2**26, zip=True)
    return png(sketch(), pnginfo=info)


EXPECTED = "expected a PNG of 8 x 8 pixels, 8 bits, RGB"
BAD_IMAGES: dict[str, tuple[Any, str]] = {
    "size": (png(sketch(size=9)), f"has 9 x 9 pixels of 8 bits, {EXPECTED}"),
    "bomb": (with_header(png(sketch()), 2**31 - 1, 2**31 - 1), "has 2147483647 x 2147483647 pixels of 8 bits"),
    "nothing": (with_header(png(sketch()), 0, 0), "has 0 x 0 pixels of 8 bits"),
    "16 bits": (png(Image.fromarray(np.zeros((8, 8), np.uint16))), f"has 8 x 8 pixels of 16 bits, {EXPECTED}"),
    "two headers": (
        with_header(png(sketch()), 8, 8)[:33] + with_header(png(sketch()), 9000, 9000)[8:],
        f"has 9000 x 9000 pixels, {EXPECTED}",
    ),
    "truncated": (png(sketch())[:-40], "is no sound PNG ("),
    "header only": (png(sketch())[:33], "is no sound PNG ("),
    "a few bytes": (png(sketch())[:20], f"is no PNG, {EXPECTED}"),
    "a wrong sum": (png(sketch())[:30] + b"\0" + png(sketch())[31:], "is no sound PNG ("),
    "text bomb": (_text_bomb(), "is no sound PNG ("),
    "transparent": (_transparent(), f"has transparent pixels, {EXPECTED}"),
    "one transparent colour": (_transparent_colour(), f"has transparent pixels, {EXPECTED}"),
    "animated": (_animated(), f"has several frames, {EXPECTED}"),
    "JPEG": (_in("JPEG"), f"is no PNG, {EXPECTED}"),
    "WebP": (_in("WEBP"), f"is no PNG, {EXPECTED}"),
    "GIF": (_in("GIF"), f"is no PNG, {EXPECTED}"),
    "empty": (b"", f"is no PNG, {EXPECTED}"),
    "no base64": ("not base64!", f"is 'not base64!', {EXPECTED}, as bytes or in base64"),
    "a data address": ("data:image/png;base64," + base64.b64encode(png(sketch())).decode(), "is 'data:image/png;base"),
    "base64 of nothing": (base64.b64encode(b"nothing").decode(), f"is no PNG, {EXPECTED}"),
    "too many bytes": (png(sketch()) + b"\0" * 2**25, f"has more than 33,554,432 bytes, {EXPECTED}"),
    "too much text": ("A" * (2**26 + 4), f"has more than 33,554,432 bytes, {EXPECTED}"),
    "a number": (7, f"is 7, {EXPECTED}, as bytes or in base64"),
    "None": (None, f"is None, {EXPECTED}, as bytes or in base64"),
    "a path": ("/etc/passwd", f"is '/etc/passwd', {EXPECTED}, as bytes or in base64"),
    "pixels": (np.zeros((8, 8, 3), np.uint8), "is array("),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images_are_named(painter: Generator, kind: str) -> None:
    value, message = BAD_IMAGES[kind]
    frame = pd.DataFrame({"sketch": pd.Series([png(sketch()), value], dtype=object), "label": [0, 1]})
    with pytest.raises(MlflowException) as caught:
        painter.rows(frame)
    assert caught.value.message.startswith(f"row 1: sketch {message}"), caught.value.message
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert len(caught.value.message) < 300


def test_colour_for_a_network_that_takes_grey_is_refused() -> None:
    with pytest.raises(
        MlflowException, match="^row 2: sketch has colours, expected a PNG of 8 x 8 pixels, 8 bits, grey"
    ):
        served_model._picture("sketch", 2, png(sketch()), GREY)


def test_spoilt_pngs_are_images_or_refused(painter: Generator) -> None:
    """Bytes changed at random: nothing else than a refusal comes of them."""
    chance = random.Random(0)
    refusals: list[str] = []
    whole = [png(sketch()), png(sketch("P")), _transparent_colour(), _animated()]
    for _ in range(400):
        content = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(8, len(content))] = chance.randrange(256)
        if chance.random() < 0.2:
            del content[chance.randrange(len(content)) :]
        try:
            painter.rows(pd.DataFrame({"sketch": [bytes(content)], "label": [0]}))
        except MlflowException as error:
            refusals.append(error.message)
    assert len(refusals) > 200
    assert [message for message in refusals if not message.startswith("row 0: sketch ")] == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0]}, "the column 'sketch' is missing, and the GAN 'toy_painter' needs it"),
        ({"sketch": [png(sketch())], "label": [4]}, "row 0: label is 4, expected an integer from 0 to 3"),
        ({"sketch": [png(sketch())], "light": [1.01]}, "row 0: light is 1.01, expected a number from 0 to 1"),
        ({"sketch": [png(sketch())], "light": [float("nan")]}, "row 0: light is nan, expected a number from 0 to 1"),
        ({"sketch": [png(sketch())], "light": ["bright"]}, "row 0: light is 'bright', expected a number from 0 to 1"),
        ({"sketch": [png(sketch())], "truncation": [0.5]}, "the GAN 'toy_painter' takes no truncation; leave that"),
        ({"sketch": [png(sketch())], "dark": [1]}, "the GAN 'toy_painter' takes no dark; leave that column out"),
    ],
)
def test_bad_rows_are_named(painter: Generator, columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(MlflowException) as caught:
        painter.rows(pd.DataFrame(columns))
    assert caught.value.message.startswith(message)


def test_labels_and_codes_left_out_are_drawn_from_the_seed(painter: Generator) -> None:
    drawn = {"label": painter.drawn("label", [5, 6]), "light": painter.drawn("light", [5, 6])}
    columns = {"seed": [5, 6], "sketch": [png(sketch())] * 2}
    images = painter.rows(pd.DataFrame(columns))
    assert (images[0] != images[1]).any()
    np.testing.assert_array_equal(images, painter.rows(pd.DataFrame(columns | drawn)))


# --- words


def test_words_that_nobody_knows_are_one_word(sayer: Generator) -> None:
    images = sayer.rows(pd.DataFrame({"seed": 1, "text": ["Red, fox", "red fox", "zebra", "gnu", "sea"], "tilt": 0.0}))
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[2], images[3])
    assert (images[0] != images[2]).any()
    assert (images[4] != images[2]).any()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("red fox blue sea", "row 0: text has 4 words; expected at most 3"),
        ("", "row 0: text is ''; expected at least one word"),
        (" . ", "row 0: text is ' . '; expected at least one word"),
        ("x" * 10_001, "row 0: text is 'xxx"),
        (3, "row 0: text is 3, expected a text of at most 10000 characters"),
        (None, "row 0: text is None, expected a text of at most 10000 characters"),
        (b"red", "row 0: text is b'red', expected a text of at most 10000 characters"),
    ],
)
def test_bad_texts_are_named(sayer: Generator, value: Any, message: str) -> None:
    with pytest.raises(MlflowException) as caught:
        sayer.rows(pd.DataFrame({"seed": [1], "text": pd.Series([value], dtype=object)}))
    assert caught.value.message.startswith(message)


# --- directions


def test_each_row_goes_its_own_direction(mirror: Generator) -> None:
    images = [sketch(size=16, seed=seed) for seed in range(3)]
    frame = pd.DataFrame(
        {
            "a": [png(images[0]), None, png(images[2])],
            "b": pd.Series([None, png(images[1]), float("nan")], dtype=object),
        }
    )
    made = mirror.rows(frame)
    np.testing.assert_array_equal(made[0], negative(images[0], 16))
    np.testing.assert_array_equal(made[1], np.asarray(images[1])[::-1])
    np.testing.assert_array_equal(made[2], negative(images[2], 16))
    np.testing.assert_array_equal(mirror.rows(pd.DataFrame({"b": [png(images[1])]}))[0], made[1])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [png(sketch(size=16))], "b": [png(sketch(size=16))]}, "row 0: has a and b, expected exactly one of the"),
        ({"a": [None]}, "row 0: has no image, expected exactly one of the columns a, b"),
        ({"seed": [1]}, "row 0: has no image, expected exactly one of the columns a, b"),
        ({"b": [png(sketch())]}, "row 0: b has 8 x 8 pixels of 8 bits, expected a PNG of 16 x 16"),
    ],
)
def test_a_row_has_the_image_of_one_direction(mirror: Generator, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(MlflowException) as caught:
        mirror.rows(pd.DataFrame(columns))
    assert caught.value.message.startswith(message)


def test_a_package_says_its_directions(packages: dict[str, Path], mirror: Generator) -> None:
    description = json.loads((packages["toy_mirror"] / "model.json").read_text())
    assert description["directions"] == [
        {"name": "there", "takes": "a", "makes": "b"},
        {"name": "back", "takes": "b", "makes": "a"},
    ]
    assert list(description["conditions"]) == ["a", "b"]
    columns = [(column.name, column.required) for column in signature(description).inputs]
    assert columns == [("seed", False), ("a", False), ("b", False)]
    # What is measured is the first direction: evaluation asks the GAN itself.
    assert list(mirror.gan.conditions) == ["a"]


def test_directions_to_images_of_two_sizes_are_refused(packages: dict[str, Path]) -> None:
    data = DataSpec({"a": Picture(size=16, channels=3), "b": Picture(size=32, channels=3)}, main="b")
    gan_class = type(toy("toy_mirror"))
    with pytest.raises(GanpipeError, match="one size and number of channels in all its directions, .* 16 px, 3 chan"):
        gan_class(gan_class.Config(), data)


def test_directions_fit_what_a_gan_says_elsewhere(packages: dict[str, Path]) -> None:
    for gan_class in map(gans.load, gans.names()):
        for taken, made in list(gan_class.directions.values())[:1]:
            assert taken in gan_class.given
            assert made == gan_class.fields[0]


# --- MLflow


@pytest.fixture(scope="module")
def painting(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> mlflow.pyfunc.PyFuncModel:
    return served(packages, "toy_painter", tmp_path_factory.mktemp("painting"))


def served(packages: dict[str, Path], name: str, folder: Path) -> mlflow.pyfunc.PyFuncModel:
    save_model(packages[name], folder / "model")
    return mlflow.pyfunc.load_model(str(folder / "model"))


def test_mlflow_takes_images_as_bytes(painting: mlflow.pyfunc.PyFuncModel) -> None:
    image = sketch()
    frame = pd.DataFrame({"sketch": [png(image)], "label": [0], "light": [0.0]})
    np.testing.assert_array_equal(painting.predict(frame)[0], negative(image, 16))
    with pytest.raises(MlflowException, match="row 0: sketch is no PNG"):
        painting.predict(pd.DataFrame({"sketch": [b"nothing"]}))


def test_a_model_server_takes_images_in_base64(painting: mlflow.pyfunc.PyFuncModel) -> None:
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import scoring_server

    client, image = TestClient(scoring_server.init(painting)), sketch()
    expected = negative(image, 16)
    text = base64.b64encode(png(image)).decode()
    bodies = [
        {"dataframe_records": [{"sketch": text, "label": 0, "light": 0.0}]},
        {"dataframe_split": {"columns": ["sketch", "label", "light"], "data": [[text, 0, 0.0]]}},
        {"inputs": {"sketch": [text], "label": [0], "light": [0.0]}},
    ]
    for body in bodies:
        answer = client.post("/invocations", json=body)
        assert answer.status_code == 200, answer.text
        np.testing.assert_array_equal(np.array(answer.json()["predictions"])[0], expected)
    for value in ("not base64!", text[:-40], base64.b64encode(_in("JPEG")).decode(), 7, None):
        for body in (
            {"dataframe_records": [{"sketch": value, "label": 0}]},
            {"inputs": {"sketch": [value], "label": [0]}},
        ):
            answer = client.post("/invocations", json=body)
            assert 400 <= answer.status_code < 500, (value, answer.text)
            assert "Traceback" not in answer.text
            assert "sketch" in answer.json()["message"], answer.text


@pytest.mark.slow
def test_mlflow_models_serve_takes_images_in_base64(packages: dict[str, Path], tmp_path: Path) -> None:
    save_model(packages["toy_mirror"], tmp_path / "model")
    image = sketch(size=16)
    text = base64.b64encode(png(image)).decode()
    with model_server(str(tmp_path / "model"), tmp_path, {}) as address:
        for body in ({"dataframe_records": [{"a": text}]}, {"inputs": {"a": [text]}}):
            status, answer = ask(address, body)
            assert status == 200, answer
            np.testing.assert_array_equal(np.array(answer["predictions"])[0], negative(image, 16))
        status, answer = ask(address, {"dataframe_records": [{"b": text[:-40]}]})
        assert status == 400
        assert "row 0: b is no sound PNG" in answer


def test_mlflow_takes_either_direction(packages: dict[str, Path], tmp_path: Path) -> None:
    model = served(packages, "toy_mirror", tmp_path)
    image = sketch(size=16)
    np.testing.assert_array_equal(model.predict(pd.DataFrame({"a": [png(image)]}))[0], negative(image, 16))
    np.testing.assert_array_equal(model.predict(pd.DataFrame({"b": [png(image)]}))[0], np.asarray(image)[::-1])
    both = pd.DataFrame({"a": [png(image), None], "b": [None, png(image)]})
    np.testing.assert_array_equal(model.predict(both)[1], np.asarray(image)[::-1])


def test_small_rows_cannot_ask_for_much_memory(painter: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that come in are limited as those that go out: some hundred bytes of PNG become any number of pixels."""
    monkeypatch.setattr(served_model, "MAX_BYTES", 16 * 16 * 3 * 4)
    model = ServedGan()
    model.generator = painter
    frame = pd.DataFrame({"sketch": [png(sketch())], "label": [0]})
    assert model.predict(None, pd.concat([frame] * 4)).shape == (4, 16, 16, 3)
    monkeypatch.setitem(painter.conditions, "paper", {"kind": "image", "size": 32, "channels": 3})
    with pytest.raises(MlflowException, match="there are 2 rows; expected 1 to 1"):
        model.predict(None, pd.concat([frame] * 2))
