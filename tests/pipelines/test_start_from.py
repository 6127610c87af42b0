"""A search and a training that start from the weights of a registered version, as a user runs them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from projects import Project

from ganpipe import services
from ganpipe.tracking.runs import STAGE_TAG, Tracker, find_runs


@pytest.mark.slow
def test_a_run_from_a_registered_version(project: Project, tmp_path: Path) -> None:
    """With a learning rate of nearly 0 what is trained stays what it started from."""
    run = project.copy(tmp_path / "project")
    trained = run.root / "artifacts" / "train"
    before = safetensors.torch.load_file(trained / "generator.safetensors")
    digest = json.loads((run.root / "artifacts/package/model.json").read_text())["digests"]["generator"]
    run.set("train.start_from", 1)
    run.set("tune.space.lr", {"choice": [1e-12]})
    run.commit("Start from version 1")
    try:
        said = run.dvc("repro")
    finally:
        services.stop(run.root)
    line = "train.start_from: models:/ganpipe-mnist/1 (a version of gan): 6 of 12 tensors of the networks start from it"
    assert said.splitlines().count(line) == 2
    after = safetensors.torch.load_file(trained / "generator.safetensors")
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in before)
    trials = list(csv.reader((run.root / "artifacts/tune/trials.csv").read_text().splitlines()))[1:]
    assert float(trials[0][-1]) == pytest.approx(float(trials[1][-1]), rel=1e-3), "each trial starts there"
    start = {"from": "models:/ganpipe-mnist/1", "sha256": digest}
    for described in (trained / "model.json", run.root / "artifacts/package/model.json"):
        assert json.loads(described.read_text())["start"] == start
    card = (run.root / "artifacts/package/card.md").read_text()
    assert f"The training started from the weights of `models:/ganpipe-mnist/1` (SHA-256 `{digest}`)." in card
    assert "    Started from models:/ganpipe-mnist/1." in run.run("ganpipe", "models").splitlines()
    versions = json.loads(run.run("ganpipe", "models", "--json"))["versions"]
    assert {item["version"]: item["start"] for item in versions} == {1: "", 2: "models:/ganpipe-mnist/1"}
    tracker = Tracker.at(run.root, "ganpipe")
    client = tracker.client()
    for stage in ("tune", "train"):
        runs = find_runs(client, tracker.experiment_id(client), {STAGE_TAG: stage})
        tags = [(one.data.tags.get("ganpipe.start.from"), one.data.tags.get("ganpipe.start.sha256")) for one in runs]
        assert (start["from"], digest) in tags
    params = [one.data.params for one in find_runs(client, tracker.experiment_id(client), {STAGE_TAG: "train"})]
    assert {item.get("start.sha256") for item in params} == {None, digest}
