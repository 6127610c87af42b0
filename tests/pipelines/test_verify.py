"""`ganpipe verify` on a version that a real run registered."""

from __future__ import annotations

import importlib.metadata
import json
import os
import tempfile
from pathlib import Path

import pytest
import yaml
from projects import Project

from ganpipe import services
from ganpipe.registry.verification import Finding, compare, compare_value, verdict
from ganpipe.tracking import lineage
from ganpipe.tracking.runs import STAGE_TAG, Tracker, find_runs


@pytest.mark.parametrize(
    ("registered", "here", "expected"),
    [
        ({"a": 1, "b": "x"}, {"a": "1", "b": "x"}, ["same     p: 2 values"]),
        ({"a": 1}, {"a": 2}, ["differs  p a: registered 1, here 2"]),
        (
            {"a": 1},
            {"b": 1},
            ["differs  p a: registered 1, here (not there)", "differs  p b: registered (not there), here 1"],
        ),
    ],
)
def test_values_are_compared_key_by_key(registered, here, expected):
    assert [finding.text for finding in compare("p", registered, here)] == expected


def test_the_whole_is_the_same_only_where_everything_is():
    same, unknown = compare_value("p", "x", "x"), compare_value("p", "x", None, "it is away")
    differs = compare_value("p", "x", "y")
    assert unknown.text == "unknown  p: registered x, here it is away"
    assert [verdict(items) for items in ([same], [same, unknown], [same, unknown, differs])] == [
        "same",
        "unknown",
        "differs",
    ]
    assert isinstance(same, Finding)


def _findings(project: Project, code: int) -> tuple[str, dict[tuple[str, str], str]]:
    told = project.run("bash", "-c", f"ganpipe verify --json{' >&2' if code else ''}", code=code)
    values = json.loads(told[told.index("{") :])
    return values["verdict"], {(item["part"], item["what"]): item["verdict"] for item in values["findings"]}


def test_a_training_tells_what_its_worker_computed_with(project: Project) -> None:
    tracker = Tracker.at(project.root, "ganpipe")
    client = tracker.client()
    (run,) = find_runs(client, tracker.experiment_id(client), {STAGE_TAG: "train"})
    path = client.download_artifacts(
        run.info.run_id, lineage.ENVIRONMENT_FILE, tempfile.mkdtemp(dir=project.root.parent)
    )
    found = json.loads(Path(path).read_text())
    assert (found["computing"]["threads"], found["computing"]["deterministic"]) == (1, True), "not the worker's"
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    assert (run.data.tags["env.threads"], run.data.tags["env.deterministic"]) == ("1", "True")


def test_pinning_a_choice_makes_it_a_setting(project: Project, tmp_path: Path) -> None:
    pinned = project.copy(tmp_path / "pinned")
    chosen = json.loads((pinned.root / "artifacts/tune/best.json").read_text())
    assert "tune.num_trials: 0" in pinned.run("ganpipe", "pin")
    params = yaml.safe_load((pinned.root / "params.yaml").read_text())
    assert params["tune"]["num_trials"] == 0
    for player, adam in chosen.items():
        assert params["gans"]["gan"][f"adam_{player}"] == adam
    (pinned.root / "artifacts/tune/best.json").write_text("{}")  # as `tune` leaves it from now on
    said = pinned.run("ganpipe", "pin", code=2)
    assert "there is nothing to pin" in said


@pytest.mark.slow
def test_a_pinned_choice_trains_the_same_generator(project: Project, tmp_path: Path) -> None:
    pinned = project.copy(tmp_path / "pinned")
    before = pinned.files()
    pinned.run("ganpipe", "pin")
    try:
        pinned.dvc("repro", "train")
    finally:
        services.stop(pinned.root)
    made = pinned.files()
    for name in ("generator.safetensors", "model.json", "curves/generator_adversarial.csv"):
        assert made[f"artifacts/train/{name}"] == before[f"artifacts/train/{name}"], name


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this process may use one CPU only: there is no fewer")
def test_fewer_cpus_for_the_command_are_no_difference(project: Project) -> None:
    told = project.run("taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), "ganpipe", "verify")
    assert "same     environment: " in told
    assert told.splitlines()[-1].startswith("same: this checkout holds what ")


def test_a_checkout_and_what_was_changed_in_it(project: Project, tmp_path: Path) -> None:
    whole, findings = _findings(project, code=0)
    assert whole == "same"
    assert {part for part, _ in findings} == {"package", "code", "settings", "data", "outputs", "environment"}

    edited = project.copy(tmp_path / "edited")
    edited.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.root / 'mlflow.db'}"
    edited.set("train.seed", 7)
    (shard,) = sorted((edited.root / "artifacts" / "shards").glob("train-000000.tar"))
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:-512] + b"\1" * 512)
    whole, findings = _findings(edited, code=1)
    assert whole == "differs"
    assert {key for key, verdict in findings.items() if verdict != "same"} == {
        ("code", ""),
        ("settings", "train.seed"),
        ("data", ""),
    }
    assert findings["data", ""] == "unknown"  # the shard is named: there is no digest to compare
