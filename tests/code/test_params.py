"""params.yaml: typed, documented, and its errors say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from ganpipe import gans
from ganpipe.data import sources
from ganpipe.errors import GanpipeError
from ganpipe.params import Params, load_params, schema

ROOT = Path(__file__).parents[2]


def write(tmp_path: Path, **changes: Any) -> Path:
    """The committed params.yaml with some dotted keys set, e.g. `train__batch_size=3`."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        section = values
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_the_committed_file_is_valid_and_states_every_setting() -> None:
    """A setting that is not in the file is one that DVC does not see change."""
    params = load_params(ROOT / "params.yaml")
    stated = yaml.safe_load((ROOT / "params.yaml").read_text())
    complete = params.model_dump(mode="json", by_alias=True)

    def missing(section: Any, given: Any, prefix: str) -> list[str]:
        if not isinstance(section, dict) or prefix.count(".") > 2:
            return []
        found = []
        for key, value in section.items():
            if value is None and key in ("log_uniform", "uniform", "choice", "min", "max"):
                continue
            if key == "mirrors":  # their place is the source's code, on which ingest depends
                continue
            if not isinstance(given, dict) or key not in given:
                found.append(f"{prefix}{key}")
            else:
                found += missing(value, given[key], f"{prefix}{key}.")
        return found

    assert missing(complete, stated, "") == []


def test_every_gan_and_source_has_a_section() -> None:
    stated = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert sorted(stated["gans"]) == gans.names()
    assert sorted(stated["sources"]) == sources.names()


def test_the_committed_schema_is_up_to_date() -> None:
    assert (ROOT / "params.schema.json").read_text() == schema(), "run `ganpipe schema`"


def test_every_field_is_documented() -> None:
    definitions = json.loads(schema())["$defs"]
    undocumented = [
        f"{name}.{key}"
        for name, definition in definitions.items()
        if name not in ("Gans", "Sources")  # their members are sections, described as such
        for key, field in definition.get("properties", {}).items()
        if not field.get("description")
    ]
    assert undocumented == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__bach_size": 3}, "train.bach_size: unknown key; did you mean 'batch_size'?"),
        ({"trian": {}}, "trian: unknown key; did you mean 'train'?"),
        (
            {"gans__dcgan__adam_generator__lr": -1},
            "gans.dcgan.adam_generator.lr: got -1; input should be greater than 0",
        ),
        (
            {"gans__dcgan__adam_generator__beta3": 0.1},
            "gans.dcgan.adam_generator.beta3: unknown key; did you mean 'beta2'",
        ),
        ({"gans__dcgam": {}}, "gans.dcgam: unknown key; did you mean 'dcgan'?"),
        ({"train__batch_size": "many"}, "train.batch_size: got 'many'; input should be a valid integer"),
        ({"train__batch_size": 6.5}, "train.batch_size: got 6.5; input should be a valid integer"),
        ({"train__batch_size": 0}, "train.batch_size: got 0; input should be greater than or equal to 1"),
        ({"cluster__num_workers": 0}, "cluster.num_workers: got 0; expected a whole number of at least 1, or .fewest"),
        ({"cluster__num_workers": [2, 1]}, "cluster.num_workers: got .2, 1.; expected a whole number of at least 1"),
        ({"cluster__num_workers": [1, 2, 3]}, "cluster.num_workers: got .1, 2, 3.; expected a whole number"),
        ({"cluster__num_workers": [1, True]}, "cluster.num_workers: got .1, True.; expected a whole number"),
        ({"cluster__num_workers": "2"}, "cluster.num_workers: got '2'; expected a whole number of at least 1"),
        ({"train__gan": "dcgn"}, "train.gan: there is no GAN named 'dcgn'; did you mean 'dcgan'?"),
        (
            {"train__precision": "fp8"},
            "train.precision: got 'fp8'; input should be 'auto', 'bf16', 'tf32', 'fp32' or 'fp64'",
        ),
        ({"data__source": "minst"}, "data.source: got 'minst'; there is no source of that name; did you mean 'mnist'?"),
        ({"data__background": "bleu"}, "data.background: got 'bleu'; expected a colour"),
        ({"data__image_size": None}, "data.image_size: got None; input should be a valid integer"),
        (
            {"tune__space__lr": {"uniform": [1, 2], "choice": [1]}},
            "tune.space.lr: .*expected exactly one of log_uniform",
        ),
        ({"tune__space__lr": {"log_uniform": [0, 1]}}, "tune.space.lr: .*expected low > 0"),
        ({"tune__space__beta1": {"uniform": [0.5, 1.5]}}, r"tune.space: .*beta1 must be in \[0, 1\), got 1.5"),
        ({"evaluate__extractor": "inception"}, "evaluate: .*needs inception_path"),
        ({"register__metric": "beauty"}, "register: .*set register.better to lower or higher"),
        ({"register__conditions__fid_x": {}}, "register.conditions.fid_x: .*give min, max or both"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_fault_is_named_with_key_value_and_what_was_expected(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(GanpipeError, match=message) as caught:
        load_params(write(tmp_path, **changes))
    assert "params.yaml" in str(caught.value) or "train.gan" in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "not valid YAML"),
        ("- 1", "expected a mapping of sections, found list"),
        ("", "expected a mapping"),
        ("train: \x00", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_params_file(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(GanpipeError, match=message):
        load_params(tmp_path / "params.yaml")


def test_no_params_file(tmp_path: Path) -> None:
    with pytest.raises(GanpipeError, match="no such file; run ganpipe in the folder that holds params.yaml"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(("given", "fewest", "most"), [(3, 3, 3), ([1, 2], 1, 2), ([2, 2], 2, 2)])
def test_a_number_of_workers_or_a_range(given: Any, fewest: int, most: int, tmp_path: Path) -> None:
    cluster = load_params(write(tmp_path, cluster__num_workers=given)).cluster
    assert (cluster.fewest_workers, cluster.most_workers) == (fewest, most)


def test_sections_are_immutable_and_documented_by_class() -> None:
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.train.batch_size = 3  # type: ignore[misc]
    assert all(field.description for field in Params.model_fields.values())
    assert isinstance(params.gan_config, BaseModel)
