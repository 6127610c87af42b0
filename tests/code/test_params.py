"""params.yaml: typed, documented, and its errors say what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from ganpipe import gans
from ganpipe.data import sources
from ganpipe.errors import GanpipeError
from ganpipe.params import Params, every_setting, load_params, schema

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
    stated = yaml.safe_load((ROOT / "params.yaml").read_text())
    complete = every_setting().model_validate(stated).model_dump(mode="json", by_alias=True)

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
            {"gans__ebgan__adam_generator__lr": -1},
            "gans.ebgan.adam_generator.lr: got -1; input should be greater than 0",
        ),
        (
            {"gans__ebgan__adam_generator__beta3": 0.1},
            "gans.ebgan.adam_generator.beta3: unknown key; did you mean 'beta2'",
        ),
        ({"gans__dcgam": {}}, "gans.dcgam: unknown key; did you mean 'dcgan'?"),
        ({"train__batch_size": "many"}, "train.batch_size: got 'many'; input should be a valid integer"),
        ({"train__batch_size": 6.5}, "train.batch_size: got 6.5; input should be a valid integer"),
        (
            {"train__start_from": True},
            "train.start_from: got True; expected null, models:/NAME/NUMBER, a version's number",
        ),
        ({"train__start_from": 0}, "train.start_from: got 0; expected null, models:/NAME/NUMBER"),
        ({"train__start_from": " "}, "train.start_from: got ' '; expected null, models:/NAME/NUMBER"),
        ({"train__start_from": "s3://me:password@host/p"}, "train.start_from: the URL holds a password"),
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
        ({"train__samples_at_updates": [-5, 0]}, "train.samples_at_updates.0: got -5; input should be greater than or"),
        ({"cluster__num_workers": float("inf")}, "cluster.num_workers: got inf; expected a whole number of at least 1"),
        (
            {"tune__space__lr": {"uniform": [1, 2], "choice": [1]}},
            "tune.space.lr: .*expected exactly one of log_uniform",
        ),
        ({"tune__space__lr": {"log_uniform": [0, 1]}}, "tune.space.lr: .*expected low > 0"),
        ({"tune__space__beta1": {"uniform": [0.5, 1.5]}}, r"tune.space: .*beta1 must be in \[0, 1\), got 1.5"),
        ({"evaluate__num_samples": 3}, "evaluate.num_neighbours: got 3; expected less than num_samples, which is 3"),
        (
            {"evaluate__num_neighbours": 1000, "evaluate__num_real": 400},
            "evaluate.num_neighbours: got 1000; expected less than num_real, which is 400",
        ),
        (
            {"tune__scheduler": "asha", "tune__grace_images": 17000},
            "tune.grace_images: got 17000; asha: expected at most num_images, which is 16000",
        ),
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


def with_text(tmp_path: Path, line: str) -> Path:
    """The committed params.yaml in which a line of text stands for a setting: `train.seed: 1e5`."""
    dotted, value = line.split(": ", 1) if ": " in line else (line.removesuffix(":"), "")
    *sections, key = dotted.split(".")
    lines = (ROOT / "params.yaml").read_text().splitlines()
    at = 0
    for depth, name in enumerate([*sections, key]):
        at = next(at + n for n, text in enumerate(lines[at:]) if text.startswith(f"{'  ' * depth}{name}:"))
    lines[at] = f"{'  ' * len(sections)}{key}: {value}"
    text = "\n".join(lines) + "\n"
    if sections[0] in ("gans", "sources"):  # of these only the chosen one is read
        chosen = {"gans": "  gan: ", "sources": "  source: "}[sections[0]]
        text = re.sub(rf"^{chosen}.*$", f"{chosen}{sections[1]}", text, count=1, flags=re.MULTILINE)
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train.num_images: 1e5", 100_000),
        ("train.num_images: 1.0e+5", 100_000),
        ("train.num_images: 100000.0", 100_000),
        ("train.num_images: 100_000", 100_000),
        ("train.num_images: 0x10", 16),
        ("cluster.num_workers: 2.0", 2),
        ("cluster.num_workers: [1, 2e0]", (1, 2)),
        ("train.samples_at_updates: [1e3, 2_000]", (1000, 2000)),
        ("train.ema_half_life: 5e-05", 5e-05),
        ("train.micro_batch_size:", None),
        ("train.compile: yes", True),
        ("train.compile: off", False),
        ("sources.folder.licence: no", "no"),
        ("sources.folder.licence: 2026-01-01", "2026-01-01"),
        ("sources.folder.description: 1:30", "1:30"),
        ("data.background: '#ff0000'", "#ff0000"),
        ("gans.dcgan.num_latents: 1e2", 100),
        ("gans.dcgan.adam_generator: {lr: 1e-4, beta1: 0.5, beta2: 0.9}", {"lr": 1e-4, "beta1": 0.5, "beta2": 0.9}),
        ("tune.space.lr: {log_uniform: [1e-4, 1e-3]}", {"log_uniform": (1e-4, 1e-3), "uniform": None, "choice": None}),
    ],
)  # fmt: skip
def test_a_value_is_what_it_means(line: str, expected: Any, tmp_path: Path) -> None:
    read = load_params(with_text(tmp_path, line)).model_dump(by_alias=True)
    value = every_setting().model_validate(read).model_dump(by_alias=True)
    for name in line.partition(":")[0].split("."):
        value = value[name]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train.num_images: '5000'", "got '5000'; expected a number, not a text (write it without quotes: 5000)"),
        ("train.num_images: 1,000", "(write it without commas: 1000)"),
        ("train.num_images: 010", "expected a number, not a text (some programs read a number that begins with 0"),
        ("train.num_images: 1:30", "(some programs read this to the base of 60: write the number out)"),
        ("train.num_images: yes", "got 'yes'; input should be a valid integer"),
        ("train.num_images: true", "got True; expected a number, not true or false"),
        ("train.num_images: 1e30", "got 1e+30; unable to parse input string as an integer, exceeded maximum size"),
        ("train.num_images:", "got None; input should be a valid integer (the value is null or missing: what"),
        ("train.seed: true", "got True; expected a number, not true or false"),
        ("train.ema_half_life: .inf", "got inf; input should be a finite number"),
        ("train.ema_half_life: .nan", "got nan; input should be a finite number"),
        ("train.samples_at_updates: [true]", "got [True]; expected a number, not true or false"),
        ("train.samples_at_updates: ['5']", "got ['5']; expected a number, not a text"),
        ("train.compile: 1", "got 1; expected true or false"),
        ("data.channels: true", "got True; expected a number, not true or false"),
        ("data.limit: '3'", "got '3'; expected a number, not a text (write it without quotes: 3)"),
        ("data.background: #ff0000", 'what follows a # is a comment, unless it is in quotes, as in "#7f7f7f")'),
        ("data.background: 0", '(a text that looks like a number has to be in quotes, as in "0")'),
        ("cluster.num_workers: '2'", "or [fewest, most] (write it without quotes: 2)"),
        ("cluster.wait_seconds: .inf", "got inf; input should be a finite number"),
        ("tune.space.lr: {choice: [true, 0.1]}", "lr.choice: got [True, 0.1]; expected a number, not true or false"),
        ("gans.dcgan.num_latents: true", "got True; expected a number, not true or false"),
        ("gans.cgan.dropout: '0.5'", "got '0.5'; expected a number, not a text (write it without quotes: 0.5)"),
        ("register.minimum_improvement: .nan", "got nan; expected auto, or a number of at least 0 and below 1"),
        ("sources.openmoji.skin_tones: 0", "got 0; expected true or false"),
    ],
)  # fmt: skip
def test_what_yaml_makes_of_a_value_is_said(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(GanpipeError) as caught:
        load_params(with_text(tmp_path, line))
    text = str(caught.value)
    assert f"params.yaml: {line.partition(':')[0].partition('lr')[0]}" in text
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  seed: 1\n  gan: gan\n  seed: 2\n", "line 4: the key 'seed' is there twice in its section"),
        ("train:\n\tseed: 1\n", "line 2, column 1: seed: 1 ^; YAML indents with spaces, not with tabs"),
    ],
)
def test_a_fault_of_the_file_says_in_which_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(GanpipeError) as caught:
        load_params(tmp_path / "params.yaml")
    assert message in str(caught.value)


def test_dvc_reads_what_is_read_here() -> None:
    """Else a stage would run under other settings than DVC noted, or run again for nothing."""
    from dvc.utils.serialize import parse_yaml as parse_as_dvc

    from ganpipe.documents import parse_yaml

    texts = "1e5 1E-3 1e+5 -1.5 .5 5. 100_000 0x10 0b11 0o17 0 -0 +7 yes No on off true False ~ null .inf -.inf 1:30 "
    texts += "1,000 '5000' 1.5e3 1_0.5 12e03"
    text = "\n".join(f"- {one}" for one in texts.split(" ")) + "\n- &a {b: 1}\n- {<<: *a, c: 2}\n-\n"
    found, wanted = parse_yaml(text), parse_as_dvc(text, "params.yaml")
    assert found == wanted
    assert [type(value) for value in found[:-3]] == [type(value) for value in wanted[:-3]]


def test_what_dvc_writes_for_set_param_is_read(tmp_path: Path) -> None:
    """`dvc exp run --set-param` parses a value by Hydra's grammar and writes it with another YAML library."""
    from dvc.utils.hydra import apply_overrides

    path = write(tmp_path)
    apply_overrides(
        path,
        [
            "train.gan=dcgan",
            "train.num_images=1e5",
            "train.micro_batch_size=null",
            "gans.dcgan.adam_generator.lr=1e-5",
            "train.seed=1e17",
        ],
    )
    params = load_params(path)
    assert (params.train.num_images, params.train.seed, params.train.micro_batch_size) == (100_000, 10**17, None)
    assert params.gan_config.model_dump()["adam_generator"]["lr"] == 1e-5
    apply_overrides(path, ["train.num_images='1e5'"])
    with pytest.raises(GanpipeError, match="train.num_images: got '1e5'; expected a number, not a text|valid integer"):
        load_params(path)


def test_what_an_override_of_a_run_holds_is_read(tmp_path: Path) -> None:
    """Prefect's parameters are JSON, in which a number of any form is one."""
    from pipelines.workspace import Workspace, override

    space = Workspace(tmp_path, "run", "")
    space.root.mkdir(parents=True)
    path = write(space.root)
    numbers = '{"train.num_images": 1e5, "gans.dcgan.adam_generator.lr": 1E-5}'
    override(space, {"train.gan": "dcgan", "train.compile": True, "data.limit": None, **json.loads(numbers)})
    params = load_params(path)
    assert (params.train.num_images, params.train.compile, params.data.limit) == (100_000, True, None)
    assert params.gan_config.model_dump()["adam_generator"]["lr"] == 1e-5
    override(space, {"train.num_images": "5000"})
    with pytest.raises(GanpipeError, match="train.num_images: got '5000'; expected a number, not a text"):
        load_params(path)


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
