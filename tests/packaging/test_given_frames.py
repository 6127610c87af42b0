"""A generator that is given frames and makes frames, as MLflow runs it: one frame below another, in and out."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from picture_parts import png
from PIL import Image
from toy_gans import build_toy, toys

from ganpipe.packaging.output_shape import Shape, incompatibility, shape_of_package
from ganpipe.packaging.package import input_example, save_model, signature
from ganpipe.packaging.served_model import Generator, package_files

RANDOM = np.random.default_rng(0)
SIDE = 16


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("forecaster")
    with toys(root) as sources:
        yield build_toy(root / "toy_forecaster", "toy_forecaster", sources)


@pytest.fixture(scope="module")
def forecaster(package: Path) -> Generator:
    return Generator(package_files(package), "cpu")


@pytest.fixture
def past() -> np.ndarray:
    """Two frames, uint8, (T, H, W)."""
    return RANDOM.integers(0, 256, (2, SIDE, SIDE), dtype=np.uint8)


def strip(frames_THW: np.ndarray) -> bytes:
    return png(Image.fromarray(frames_THW.reshape(-1, frames_THW.shape[2])))


def expected(past_THW: np.ndarray) -> np.ndarray:
    return np.concatenate([255 - past_THW[1], past_THW[1], 255 - past_THW[1]])[:, :, None]


def test_frames_come_and_go_one_below_another(forecaster: Generator, past: np.ndarray) -> None:
    content = strip(past)
    made_NHWC = forecaster.rows(pd.DataFrame({"past": [content, base64.b64encode(content).decode()]}))
    assert made_NHWC.shape == (2, 3 * SIDE, SIDE, 1)
    for made_HWC in made_NHWC:
        np.testing.assert_array_equal(made_HWC, expected(past))


def test_a_strip_of_another_size_is_refused(forecaster: Generator, past: np.ndarray) -> None:
    wanted = r"expected a PNG of 16 x 32 pixels \(2 frames, one below another\), 8 bits, grey"
    beside = png(Image.fromarray(np.concatenate(list(past), axis=1)))
    for content in (strip(past[:1]), strip(np.concatenate([past, past])), beside):
        with pytest.raises(MlflowException, match=rf"row 0: past has .*{wanted}"):
            forecaster.rows(pd.DataFrame({"past": [content]}))
    with pytest.raises(MlflowException, match="the column 'past' is missing"):
        forecaster.rows(pd.DataFrame({"seed": [0]}))


def test_mlflow_runs_it_and_its_signature_and_example_fit(package: Path, past: np.ndarray, tmp_path: Path) -> None:
    save_model(package, tmp_path / "model")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    np.testing.assert_array_equal(model.predict(pd.DataFrame({"past": [strip(past)]}))[0], expected(past))
    description = json.loads((package / "model.json").read_text(encoding="utf-8"))
    assert signature(description).outputs.inputs[0].shape == (-1, 3 * SIDE, SIDE, 1)
    assert model.predict(pd.DataFrame(input_example(description))).shape == (2, 3 * SIDE, SIDE, 1)


def test_the_number_of_frames_is_part_of_the_shape(package: Path) -> None:
    shape = shape_of_package(json.loads((package / "model.json").read_text(encoding="utf-8")))
    assert shape == Shape(SIDE, 1, 0, conditional=True, num_frames=3)
    assert shape.text == "3 frames of 16 px, 1 channel, no classes"
    other = Shape(SIDE, 1, 0, conditional=True, num_frames=4)
    assert incompatibility(shape, shape, "v2") == ""
    assert "the champion makes 3 frames of 16 px" in incompatibility(shape, other, "v2")
