"""Trainings that differ in their seeds only, as MLflow knows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_parts import digits_dataset
from registry_parts import tracker_in

from ganpipe.params import Params
from ganpipe.stages.runs import recipe_tags
from ganpipe.tracking.seeds import PROTOCOL_TAG, RECIPE_TAG, SEED_TAG, over_seeds


def test_one_value_per_seed_of_the_recipe_and_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = tracker_in(tmp_path)
    client = tracker.client()
    assert over_seeds(client, tracker, "r", "p", "fid") == []  # there is no experiment yet
    rows = [("r", "p", 0, 1.0), ("r", "p", 1, 2.0), ("r", "q", 2, 3.0), ("s", "p", 3, 4.0), ("r", "p", 1, 2.5)]
    for number, (recipe, protocol, seed, value) in enumerate(rows):
        tags = {RECIPE_TAG: recipe, PROTOCOL_TAG: protocol, SEED_TAG: str(seed)}
        with tracker.run("evaluate", str(number), tags=tags) as run:
            run.log_metrics({"fid": value, "kid": 0.1}, step=5)
    with tracker.run("train", "t", tags={RECIPE_TAG: "r", PROTOCOL_TAG: "p", SEED_TAG: "9"}) as run:
        run.log_metrics({"fid": 9.0}, step=5)
    found = over_seeds(client, tracker, "r", "p", "fid")
    assert len(found) == 2
    assert found[0] == 1.0
    assert found[1] in (2.0, 2.5)
    assert over_seeds(client, tracker, "r", "p", "recall") == []
    assert over_seeds(client, tracker, "", "p", "fid") == []  # a version of an earlier ganpipe


def test_a_recipe_is_everything_but_the_seeds() -> None:
    def tags(**train: object) -> dict[str, str]:
        return recipe_tags(Params.model_validate({"train": train}), digits_dataset().manifest)

    first, other_seed, longer = tags(seed=0), tags(seed=1), tags(seed=0, num_images=7)
    assert (first[SEED_TAG], other_seed[SEED_TAG]) == ("0", "1")
    assert first[RECIPE_TAG] == other_seed[RECIPE_TAG] != longer[RECIPE_TAG]
