"""An MLflow database and its files with two real versions, and all that may go missing there."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.cli import cli
from registry_parts import SMALL
from report_parts import METRICS, SOURCE, register_version, write_evaluation, write_search, write_shards, write_training

from ganpipe.params import load_params
from ganpipe.registry.alias_history import TRAIL_TAG
from ganpipe.registry.registration import Candidate, register
from ganpipe.tracking.runs import Tracker

MODEL = "ganpipe-mnist"
EXPERIMENT = "ganpipe"


def make_checkout(root: Path) -> None:
    """What a run leaves, without its code and DVC: version 1 is the champion, 2 is worse and the challenger."""
    root.mkdir(parents=True)
    params = yaml.safe_load((SOURCE / "params.yaml").read_text(encoding="utf-8"))
    params["train"]["gan"] = "cgan"
    params["register"]["require_commit"] = False
    params["gans"]["cgan"] |= SMALL["cgan"]
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    (root / ".dvc").mkdir()
    write_shards(root)
    write_search(root)
    write_training(root)
    protocol = write_evaluation(root)
    run_id = register_version(root, protocol)
    worse = {**METRICS, "fid_efficientnet_lite0": 50.0}
    settings, tracker = load_params(root / "params.yaml").register_, Tracker.at(root, EXPERIMENT)
    candidate = Candidate(root / "artifacts" / "package", worse, protocol.hash, run_id)
    register(candidate, settings, tracker, lambda version: {})


def copied(original: Path, root: Path) -> Path:
    """A copy whose MLflow finds its files in the copy: MLflow keeps absolute places."""
    shutil.copytree(original, root)
    with sqlite3.connect(root / "mlflow.db") as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for _, column, kind, *_ in database.execute(f"PRAGMA table_info({table})").fetchall():
                if "CHAR" in kind.upper() or "TEXT" in kind.upper():
                    change = f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE "{column}" LIKE ?'
                    database.execute(change, (str(original), str(root), f"%{original}%"))
    database.close()
    return root


@dataclass
class Registry:
    """A checkout's MLflow, to be damaged."""

    root: Path

    def __post_init__(self) -> None:
        self.tracker = Tracker.at(self.root, EXPERIMENT)
        self.client: MlflowClient = self.tracker.client()
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        self.experiment_id = str(experiment.experiment_id)
        runs = self.client.search_runs([self.experiment_id], "tags.`ganpipe.stage` = 'train'")
        self.run_id = str(runs[0].info.run_id)
        self.trail_id = str(self.client.get_registered_model(MODEL).tags[TRAIL_TAG])
        self.files = self.root / "mlartifacts"

    def collect(self) -> None:
        """`mlflow gc`: what was deleted is gone for good."""
        places = {"MLFLOW_TRACKING_URI": self.tracker.uri}
        done = CliRunner().invoke(cli, ["gc", "--backend-store-uri", self.tracker.uri], env=places)
        assert done.exit_code == 0, done.output

    def retag(self, value: str | None) -> None:
        """Give all of the champion's tags another value, or take them away."""
        for tag in list(self.client.get_model_version(MODEL, "1").tags):
            if value is None:
                self.client.delete_model_version_tag(MODEL, "1", tag)
            elif tag != "ganpipe.content":
                self.client.set_model_version_tag(MODEL, "1", tag, value)


def run_deleted(store: Registry) -> None:
    store.client.delete_run(store.run_id)


def run_collected(store: Registry) -> None:
    store.client.delete_run(store.run_id)
    store.collect()


def experiment_renamed(store: Registry) -> None:
    store.client.rename_experiment(store.experiment_id, "another")


def experiment_deleted(store: Registry) -> None:
    store.client.delete_experiment(store.experiment_id)


def experiment_collected(store: Registry) -> None:
    store.client.delete_experiment(store.experiment_id)
    store.collect()


def model_files_removed(store: Registry) -> None:
    for folder in store.files.glob("**/models"):
        shutil.rmtree(folder)


def all_files_removed(store: Registry) -> None:
    shutil.rmtree(store.files)


def run_files_removed(store: Registry) -> None:
    shutil.rmtree(next(store.files.glob(f"**/{store.run_id}")))


def environment_overwritten(store: Registry) -> None:
    next(store.files.glob("**/environment.json")).write_text("{", encoding="utf-8")


def description_removed(store: Registry) -> None:
    for path in store.files.glob("**/model.json"):
        path.unlink()


def weights_removed(store: Registry) -> None:
    for path in store.files.glob("**/generator.safetensors"):
        path.unlink()


def logged_models_collected(store: Registry) -> None:
    for model in store.client.search_logged_models([store.experiment_id]):
        store.client.delete_logged_model(model.model_id)
    store.collect()


def champion_deleted(store: Registry) -> None:
    store.client.delete_model_version(MODEL, "1")


def versions_deleted(store: Registry) -> None:
    for number in ("1", "2"):
        store.client.delete_model_version(MODEL, number)


def model_deleted(store: Registry) -> None:
    store.client.delete_registered_model(MODEL)


def model_renamed(store: Registry) -> None:
    store.client.rename_registered_model(MODEL, "another")


def alias_removed(store: Registry) -> None:
    store.client.delete_registered_model_alias(MODEL, "champion")


def alias_moved(store: Registry) -> None:
    store.client.set_registered_model_alias(MODEL, "champion", "2")


def foreign_champion(store: Registry) -> None:
    """The alias is on a version that nobody registered with ganpipe, and whose source is gone."""
    made = store.client.create_model_version(MODEL, str(store.root / "nowhere"), store.run_id)
    store.client.set_registered_model_alias(MODEL, "champion", made.version)


def tags_removed(store: Registry) -> None:
    store.retag(None)


def tags_overwritten(store: Registry) -> None:
    store.retag("{no JSON")


def tags_of_another_kind(store: Registry) -> None:
    store.retag("[1]")


def trail_tag_removed(store: Registry) -> None:
    store.client.delete_registered_model_tag(MODEL, TRAIL_TAG)


def trail_tag_overwritten(store: Registry) -> None:
    store.client.set_registered_model_tag(MODEL, TRAIL_TAG, "no/run")


def trail_deleted(store: Registry) -> None:
    store.client.delete_run(store.trail_id)


def trail_collected(store: Registry) -> None:
    store.client.delete_run(store.trail_id)
    store.collect()


def run_tags_removed(store: Registry) -> None:
    for tag in list(store.client.get_run(store.run_id).data.tags):
        if not tag.startswith("mlflow"):
            store.client.delete_tag(store.run_id, tag)


Damage = Callable[[Registry], None]
