"""What a host that died had not sent to MLflow is logged from the checkpoint by the one that goes on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from registry_parts import tracker_in
from training_parts import SMALL

from ganpipe.gans import load
from ganpipe.training.settings import TrainSettings
from ganpipe.training.worker import TrainingJob, run_training


def test_curves_and_scores_of_a_checkpoint_are_logged_where_they_are_missing(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    values = {"num_images": 160, "batch_size": 16, "precision": "fp64", "checkpoint_every": 80, "log_every": 40}
    settings = TrainSettings.model_validate({"gan": "gan", **values})
    config = load("gan").Config.model_validate(SMALL["gan"])
    job = TrainingJob("t", "gan", config, settings, str(shards), str(tmp_path / "work"), score_name="distance")
    job = dataclasses.replace(job, score=lambda gan, now: now.images_seen / 10)
    tracker = tracker_in(tmp_path / "repo")
    # The first half by a host whose records never arrived, the rest by one that logs; it has logged steps 40 itself.
    run_training(job)
    with tracker.run("train", "k") as before:
        before.log_metrics({"generator_adversarial": 7.0}, step=48)
    longer = dataclasses.replace(job, settings=settings.model_copy(update={"num_images": 320}))
    state = run_training(dataclasses.replace(longer, open_tracker=lambda: tracker.run("train", "k")))
    client = tracker.client()

    def logged(key: str) -> dict[int, float]:
        history = client.get_metric_history(before.run_id, key)
        assert len({metric.step for metric in history}) == len(history)
        return {metric.step: metric.value for metric in history}

    rows = {int(row["images_seen"]): row for row in state.curves.rows}
    assert list(rows) == [48, 80, 128, 160, 208, 240, 288, 320]
    assert logged("discriminator_adversarial") == {seen: row["discriminator_adversarial"] for seen, row in rows.items()}
    assert logged("generator_adversarial")[48] == 7.0  # what is there stays
    assert logged("distance") == {80: 8.0, 160: 16.0, 240: 24.0, 320: 32.0}
