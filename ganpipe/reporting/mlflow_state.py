"""What MLflow knows of a training and its generator. The only thing written to MLflow is the page, to the training's
run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import GanpipeError, UnavailableError
from ..packaging.package import digest_of_package
from ..redaction import without_user_info
from ..registry.alias_history import alias_history_of
from ..registry.registration import content_digest, decision_of
from ..registry.versions import CHAMPION, find_version
from ..tracking.connection import sqlite_path, with_retries
from ..tracking.runs import RUN_KEY_TAG, STAGE_TAG, Tracker, find_runs
from .contents import Decision, Registered, TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PAGE = "report.html"
"""Name of the file in the training's run."""
_PATIENCE_SECONDS = 10.0


def connect_to_existing(tracker: Tracker) -> MlflowClient:
    """A client for MLflow, after a check that it answers.

    Raises:
        GanpipeError: MLflow does not answer, or there is no database yet (it is not created here).
    """
    path = sqlite_path(tracker.uri)
    if path is not None and not path.exists():
        raise GanpipeError(f"{path.name} is not there yet: the stages `tune`, `train` and `register` make it")
    tracker.check()
    return tracker.client()


def read_run(client: MlflowClient, tracker: Tracker, run_key: str) -> TrackedRun | None:
    """The run of the training with this run key; None if MLflow has no such run."""

    def find() -> TrackedRun | None:
        experiment = client.get_experiment_by_name(tracker.experiment)
        if experiment is None:
            return None
        found = find_runs(client, experiment.experiment_id, {STAGE_TAG: "train", RUN_KEY_TAG: run_key})
        if not found:
            return None
        run = found[0]
        url = ""
        if tracker.uri.startswith(("http://", "https://")):
            page = without_user_info(tracker.uri).rstrip("/")
            url = f"{page}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}"
        return TrackedRun(run.info.run_id, url, dict(run.data.tags), _packages(client, run.info.run_id))

    return with_retries(find, tracker.uri, _PATIENCE_SECONDS)


def _packages(client: MlflowClient, run_id: str) -> dict[str, str]:
    """The packages in the run's environment.json; empty if the file is missing or damaged."""
    name = "environment.json"
    if name not in {item.path for item in client.list_artifacts(run_id)}:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            values = json.loads(Path(client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8"))
        except ValueError:
            return {}
    packages = values.get("packages") if isinstance(values, dict) else None
    return {str(key): str(value) for key, value in packages.items()} if isinstance(packages, dict) else {}


def read_registered(
    client: MlflowClient,
    tracker: Tracker,
    model: str,
    package: Path,
    metrics: Mapping[str, float],
    protocol_hash: str,
) -> Registered | None:
    """The version with exactly this package, metrics and protocol; None if it is not registered."""
    content = content_digest(digest_of_package(package), metrics, protocol_hash)
    version = find_version(client, tracker, model, content)
    if version is None:
        return None
    found = with_retries(lambda: client.get_registered_model(model), tracker.uri, _PATIENCE_SECONDS)
    aliases = {alias: int(number) for alias, number in found.aliases.items()}
    number = int(version.version)
    return Registered(
        model=model,
        version=number,
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
        champion=aliases.get(CHAMPION),
        decision=_decision(version),
        moves=[move for move in _moves(client, tracker, model) if number in (move.get("from"), move.get("to"))],
        tags=dict(version.tags),
    )


def _decision(version: ModelVersion) -> Decision | None:
    found = decision_of(version)
    return None if found is None else Decision(found.passed, found.promote, tuple(found.reasons))


def _moves(client: MlflowClient, tracker: Tracker, model: str) -> list[dict[str, Any]]:
    try:
        return alias_history_of(client, tracker, model)
    except UnavailableError:
        raise
    except GanpipeError:  # the run of the alias history is gone; the version's tags are still shown
        return []


def log_page(client: MlflowClient, tracker: Tracker, run_id: str, html: str) -> None:
    """Store the page as report.html of the run; it replaces an earlier page.

    Raises:
        GanpipeError: MLflow did not take it.
    """
    with_retries(lambda: client.log_text(run_id, html, PAGE), tracker.uri, _PATIENCE_SECONDS)
