"""Registering: idempotent by content, aliases moved by the gate, and the reasons kept."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow_parts import load_where_ganpipe_is_not_installed
from registry_parts import NAME, PROTOCOL, Desk, make_gan, own_samples

from ganpipe.errors import GanpipeError
from ganpipe.packaging.package import download_package
from ganpipe.packaging.served_model import Generator, package_files
from ganpipe.registry.alias_history import alias_history_of
from ganpipe.registry.settings import Condition
from ganpipe.registry.versions import DECISION_TAG, GATE_TAG, version_by_alias
from ganpipe.tracking.seeds import PROTOCOL_TAG, RECIPE_TAG, SEED_TAG


def test_the_first_is_champion_and_loads_anywhere(desk: Desk, tmp_path: Path) -> None:
    done = desk.register(40.0)
    assert (done.version, done.created, done.champion) == (1, True, 1)
    assert done.aliases == ["challenger", "champion"]
    assert done.alias_uri == f"models:/{NAME}@champion"
    assert done.moved == ["challenger moved to version 1.", "champion moved to version 1."]
    images = load_where_ganpipe_is_not_installed(done.alias_uri, tmp_path, MLFLOW_TRACKING_URI=desk.tracker.uri)
    np.testing.assert_array_equal(images, own_samples(make_gan("cgan"), [0, 1, 7], [3, 0, 9]).numpy())


def test_a_version_says_what_it_is_and_why(desk: Desk) -> None:
    done = desk.register(40.0)
    version = desk.client.get_model_version(NAME, "1")
    assert done.decision.text == "There is no champion yet, so version 1 becomes the champion with fid_x 40."
    assert version.description == f"A generator of 16 x 16 grey images.\n\n**Gate:** {done.decision.text}"
    assert version.run_id == desk.run_id
    tags = version.tags
    assert json.loads(tags["ganpipe.metrics"]) == {"fid_x": 40.0, "recall": 0.5}
    assert tags["metric.fid_x"] == "40"
    assert tags["ganpipe.licence"] == "CC BY-SA 3.0"
    assert tags["ganpipe.protocol"] == PROTOCOL
    assert tags["mlflow.source.git.commit"] == "abc"
    assert {"ganpipe.digest.code", "ganpipe.digest.data", "ganpipe.digest.generator", "ganpipe.run_key"} <= set(tags)
    assert desk.client.get_logged_model(version.source.removeprefix("models:/")).source_run_id == desk.run_id


def test_the_same_content_finds_its_version(desk: Desk) -> None:
    desk.register(40.0)
    again = desk.register(40.0)
    assert (again.version, again.created, again.moved) == (1, False, [])
    assert again.aliases == ["challenger", "champion"]
    assert len(desk.client.search_model_versions(f"name = '{NAME}'")) == 1
    assert len(alias_history_of(desk.client, desk.tracker, NAME)) == 2


def test_better_replaces_worse_does_not(desk: Desk) -> None:
    desk.register(40.0)
    worse = desk.register(45.0)
    assert (worse.version, worse.champion, worse.aliases) == (2, 1, ["challenger"])
    better = desk.register(30.0)
    assert (better.version, better.champion, better.aliases) == (3, 3, ["challenger", "champion"])
    assert "30 against 40 of version 1, the champion" in better.decision.text
    moves = [(move["alias"], move["from"], move["to"]) for move in alias_history_of(desk.client, desk.tracker, NAME)]
    assert moves == [
        ("challenger", None, 1),
        ("champion", None, 1),
        ("challenger", 1, 2),
        ("challenger", 2, 3),
        ("champion", 1, 3),
    ]
    assert all(move["by"] and move["at"] and move["why"] for move in alias_history_of(desk.client, desk.tracker, NAME))


def test_the_gate_knows_what_other_samples_and_other_seeds_change(desk: Desk) -> None:
    desk.half_width, desk.tags = 0.5, {**desk.tags, RECIPE_TAG: "r1"}
    desk.register(40.0)
    alike = desk.register(39.5, minimum_improvement="auto")
    assert (alike.version, alike.champion) == (2, 1)
    assert "below 39.2929 (0.707107 is what other samples change" in alike.decision.text
    assert "the two are not distinguishable, and version 1 stays" in alike.decision.text
    for seed, fid in enumerate((38.0, 40.0, 42.0)):
        tags = {RECIPE_TAG: "r1", SEED_TAG: str(seed), PROTOCOL_TAG: PROTOCOL}
        with desk.tracker.run("evaluate", f"seed {seed}", tags=tags) as run:
            run.log_metrics({"fid_x": fid}, step=1)
    lucky = desk.register(37.0, minimum_improvement="auto")
    assert (lucky.version, lucky.champion) == (3, 1)
    assert "is what other samples and other seeds change) was needed" in lucky.decision.text
    desk.tags = {**desk.tags, RECIPE_TAG: "r2"}  # another recipe, whose seeds are not known: those of r1 stand for it
    better = desk.register(34.0, minimum_improvement="auto")
    assert (better.version, better.champion) == (4, 4)


def test_a_failed_condition_gives_no_alias(desk: Desk) -> None:
    done = desk.register(40.0, conditions={"recall": Condition(min=0.9)})
    assert (done.aliases, done.champion, done.alias_uri) == ([], None, f"models:/{NAME}/1")
    assert done.decision.reasons[0] == "Condition on recall does not hold: 0.5, wanted at least 0.9."
    relaxed = desk.register(40.0)  # the same content under other conditions is decided again
    assert (relaxed.version, relaxed.created, relaxed.champion) == (1, False, 1)


def test_another_protocol_scores_the_champion_again_and_once(desk: Desk) -> None:
    desk.register(40.0)
    done = desk.register(30.0, protocol="q" * 64, rescored_fid=25.0)
    assert (done.champion, desk.rescored) == (1, [1])
    assert done.decision.reasons[0].startswith("version 1 had been measured under another protocol (pppppppppppp)")
    assert "30 against 25 of version 1" in done.decision.text
    done = desk.register(20.0, protocol="q" * 64)
    assert (done.champion, desk.rescored) == (3, [1])


def test_scoring_again_must_give_the_metric(desk: Desk) -> None:
    desk.register(40.0)
    with pytest.raises(GanpipeError, match="the evaluation of version 1 has no metric 'fid_x'"):
        desk.register(30.0, protocol="q" * 64)


def test_registering_that_was_cut_short_is_completed(desk: Desk) -> None:
    desk.register(40.0)
    desk.register(30.0)
    for tag in (DECISION_TAG, GATE_TAG):
        desk.client.delete_model_version_tag(NAME, "2", tag)
    for alias in ("champion", "challenger"):
        desk.client.set_registered_model_alias(NAME, alias, "1")
    done = desk.register(30.0)
    assert (done.version, done.created, done.champion, done.aliases) == (2, False, 2, ["challenger", "champion"])


def test_a_model_that_was_logged_but_not_registered_is_used(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "create_model_version", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            desk.register(40.0)
    assert desk.register(40.0).version == 1
    experiment = desk.client.get_run(desk.run_id).info.experiment_id
    assert len(desk.client.search_logged_models([experiment])) == 1


def _interrupted(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_an_unmeasured_metric_is_found_before_anything_is_written(desk: Desk) -> None:
    with pytest.raises(GanpipeError, match=r"register\.metric: .* did you mean 'fid_x'\?"):
        desk.register(40.0, metric="fid_y")
    assert desk.client.search_registered_models() == []


def test_a_versions_package_is_downloaded(desk: Desk, tmp_path: Path) -> None:
    desk.register(40.0)
    version = version_by_alias(desk.client, desk.tracker, NAME, "champion")
    assert version is not None
    package = download_package(desk.tracker, version, tmp_path / "downloaded")
    assert (package / "model.json").read_bytes() == (desk.package / "model.json").read_bytes()
    assert Generator(package_files(package), "cpu").images([1, 2]).shape == (2, 1, 16, 16)


def test_a_strangers_champion_is_named(desk: Desk) -> None:
    desk.register(40.0)
    source = desk.client.get_model_version_download_uri(NAME, "1")
    desk.client.create_model_version(NAME, source)
    desk.client.set_registered_model_alias(NAME, "champion", "2")
    done = desk.register(30.0)
    assert "Not comparable: version 2 of tests has no numbers in its tag 'ganpipe.metrics'" in done.decision.text
    assert (done.aliases, done.champion) == (["challenger"], 2)


def test_the_example_in_the_registry_can_be_predicted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.register(40.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", desk.tracker.uri)
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    images = model.predict(model.input_example)
    assert images.shape == (2, 16, 16, 1)
    with pytest.raises(mlflow.exceptions.MlflowException, match="row 0: seed is -1"):
        model.predict(pd.DataFrame({"seed": [-1]}))
