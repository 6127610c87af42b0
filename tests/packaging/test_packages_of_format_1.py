"""Packages of format 1 (before fields had types) are opened, measured, registered and served as they were.

tests/packaging/format_1 holds two packages that the code of commit a0c2b78 built, zipped, and the images that it made
of these rows: uint8, (4, 8, 8, 1).
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from registry_parts import tracker_in
from serving_parts import Registry

from ganpipe.data.loading.opening import open_dataset
from ganpipe.evaluation.extractors import efficientnet_lite0
from ganpipe.evaluation.reference import compute_reference, save_reference
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.fields import Label
from ganpipe.gans.base import Progress
from ganpipe.packaging import package
from ganpipe.packaging.output_shape import Shape, shape_of_package
from ganpipe.packaging.package import input_example, signature
from ganpipe.params import Params
from ganpipe.registry.gate import NotComparable
from ganpipe.registry.open_model import load
from ganpipe.serving.query import Row
from ganpipe.serving.version import load as load_served
from ganpipe.stages.common import REFERENCE, SHARDS
from ganpipe.stages.evaluate import measure, protocol_here

FORMAT_1 = Path(__file__).parent / "format_1"
DATA = Path(__file__).parents[1] / "data" / "format_1"
ROWS = {"seed": [0, 1, 2, 3], "truncation": [1.0, 0.7, 1.0, 1.0], "to_seed": [5] * 4, "mix": [0.0, 0.0, 0.5, 1.0]}
SETTINGS = EvaluateSettings(resize=32, num_samples=20, num_real=17, kid_subsets=2, kid_subset_size=10, num_neighbours=2)
both = pytest.mark.parametrize("gan", ["gan", "cgan"])


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The packages' folders, by GAN."""
    root = tmp_path_factory.mktemp("packages")
    for gan in ("gan", "cgan"):
        with zipfile.ZipFile(FORMAT_1 / f"package-{gan}.zip") as archive:
            archive.extractall(root / gan)
    return {gan: root / gan for gan in ("gan", "cgan")}


def images_of(name: str) -> np.ndarray:
    with np.load(FORMAT_1 / f"images-{name}.npz") as arrays:
        return np.asarray(arrays["images"])


def require_same(found: np.ndarray, name: str) -> None:
    """Up to the rounding of matrix products, which differ between machines: one grey level."""
    expected = images_of(name).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() > 0.9


@both
def test_it_gives_the_images_of_before(packages: dict[str, Path], gan: str) -> None:
    generator = load("a package", packages[gan])
    assert generator.description["format"] == 1
    require_same(generator.rows(pd.DataFrame(ROWS)), gan)


def test_and_takes_labels(packages: dict[str, Path]) -> None:
    generator = load("a package", packages["cgan"])
    require_same(generator.rows(pd.DataFrame({**ROWS, "label": [0, 1, 0, 1]})), "cgan-labels")
    assert (generator.label, generator.num_classes) == ("label", 2)


@pytest.fixture
def without_names(packages: dict[str, Path], tmp_path: Path) -> Path:
    """A conditional package from before the names of classes were kept: only its code says that it takes labels."""
    folder = shutil.copytree(packages["cgan"], tmp_path / "package")
    description = json.loads((folder / "model.json").read_text())
    del description["classes"]
    (folder / "model.json").write_text(json.dumps(description))
    return folder


def test_a_conditional_package_without_names_of_classes(without_names: Path) -> None:
    generator = load("a package", without_names)
    require_same(generator.rows(pd.DataFrame(ROWS)), "cgan")
    require_same(generator.rows(pd.DataFrame({**ROWS, "label": [0, 1, 0, 1]})), "cgan-labels")


def test_what_it_says_of_itself(packages: dict[str, Path]) -> None:
    for gan, given in (("gan", []), ("cgan", ["label"])):
        generator = load("a package", packages[gan])
        assert (list(generator.conditions), list(generator.gan.conditions)) == (given, given)
        assert generator.gan.output.row_shape == (1, 8, 8)
        assert shape_of_package(generator.description) == Shape(8, 1, 2, gan == "cgan")
        names = signature(generator.description).inputs.input_names()
        assert names == ["seed", *given, "truncation", "to_seed", "mix"]
        assert generator.rows(pd.DataFrame(input_example(generator.description))).shape == (2, 8, 8, 1)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The shards of format 1 and their reference, as stages leave them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANPIPE_CACHE", str(tmp_path / "cache"))
    SHARDS.parent.mkdir()
    SHARDS.symlink_to(DATA)
    extractor = efficientnet_lite0(SETTINGS.resize)
    save_reference(compute_reference(open_dataset(SHARDS, "train"), extractor, SETTINGS), REFERENCE)
    return tmp_path


@both
def test_the_gate_can_measure_it(packages: dict[str, Path], checkout: Path, gan: str) -> None:
    generator = load("a package", packages[gan])
    progress = Progress(**generator.description["progress"])
    found = measure(generator.gan, progress, Params(evaluate=SETTINGS), averaged=True)
    assert np.isfinite(found.metrics["fid_efficientnet_lite0"])
    assert found.protocol == protocol_here(generator.gan, Params(evaluate=SETTINGS), averaged=True)


def test_on_other_data_it_is_not_comparable(packages: dict[str, Path], checkout: Path) -> None:
    generator = load("a package", packages["gan"])
    text = (DATA / "manifest.json").read_text().replace('"image_size": 8', '"image_size": 16')
    SHARDS.unlink()
    SHARDS.mkdir()
    (SHARDS / "manifest.json").write_text(text)
    with pytest.raises(NotComparable, match=r"made for image: 8 px, 1 channel; the data in artifacts/shards have 16"):
        measure(generator.gan, Progress(0, 1), Params(evaluate=SETTINGS), averaged=True)


@pytest.mark.parametrize("has_names", [True, False])
def test_it_is_served(
    packages: dict[str, Path],
    without_names: Path,
    tmp_path: Path,
    empty_registry: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    has_names: bool,
) -> None:
    columns = signature(json.loads((packages["cgan"] / "model.json").read_text()))
    monkeypatch.setattr(
        package, "signature", lambda description: columns
    )  # earlier code took them from the GAN's class
    registry = Registry(tmp_path, tracker_in(tmp_path, empty_registry[0]))
    number = registry.add_package(packages["cgan"] if has_names else without_names, "cgan")
    version = registry.client.get_model_version("ganpipe-mnist", str(number))
    served = load_served(registry.tracker, version, tmp_path)
    assert served.capabilities.conditions == {"label": Label(num_classes=2)}
    assert tuple(served.capabilities.names["label"]) == (("left", "right") if has_names else ())
    found = served.images([Row(0, (("label", 0),))]).astype(int)
    assert np.abs(found[0] - images_of("cgan-labels")[0]).max() <= 1
