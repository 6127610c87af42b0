"""How a stage finds its run in MLflow.

Only MLflow's client is used, never its global active run, because stages, Ray workers and trials log at the same time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import GanpipeError
from ..redaction import without_password
from . import relocation
from .connection import check_reachable, prepare_client, sqlite_path, tracking_uri, with_retries
from .run_log import DeferredRun, RunLog, RunState

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_KEY_TAG = "ganpipe.run_key"
STAGE_TAG = "ganpipe.stage"
PARENT_TAG = "mlflow.parentRunId"
_LATER = "later-"
"""Prefix of the name of a spool whose run MLflow may not have yet."""


@dataclass(frozen=True)
class Tracker:
    """How a process reaches MLflow. Holds plain strings only, so that it can be sent to Ray workers.

    Attributes:
        uri: absolute tracking URI; the registry's URI is the same unless MLFLOW_REGISTRY_URI says otherwise.
        experiment: name of the experiment.
        spool_dir: folder of the records that MLflow has not taken yet.
        artifact_dir: for an SQLite database, the folder in which a new experiment keeps its files; else None, because
            the server decides.
    """

    uri: str
    experiment: str
    spool_dir: str
    artifact_dir: str | None = None

    @classmethod
    def at(cls, root: Path, experiment: str) -> Tracker:
        """The tracker of the checkout in `root`, as the environment variables say."""
        uri = tracking_uri(root)
        artifacts = None if sqlite_path(uri) is None else str(root.resolve() / relocation.ARTIFACTS)
        return cls(uri, experiment, str(root.resolve() / ".ganpipe" / "tracking"), artifacts)

    def check(self, timeout_seconds: float = 5.0) -> None:
        """See `check_reachable`."""
        check_reachable(self.uri, timeout_seconds)

    def client(self) -> MlflowClient:
        """A client. An SQLite database is created first if it does not exist, by one process at a time.

        Raises:
            GanpipeError: MLflow cannot use the database.
        """
        prepare_client()
        from mlflow import MlflowClient

        path = sqlite_path(self.uri)
        if path is None:
            return MlflowClient(self.uri)
        from mlflow.exceptions import MlflowException

        with self._locked():
            try:
                client = MlflowClient(self.uri)
                client.search_experiments(max_results=1)
            except MlflowException as error:
                raise GanpipeError(f"{path}: MLflow cannot use this database: {str(error).splitlines()[0]}") from error
            if self.artifact_dir is not None:
                relocation.relocate(path, Path(self.artifact_dir).parent)
        return client

    def _locked(self) -> Any:
        """A lock that one process of this host holds at a time; for SQLite, one of all processes that use the
        database."""
        from filelock import FileLock

        path = sqlite_path(self.uri)
        lock = Path(self.spool_dir) / "lock" if path is None else path.with_name(f"{path.name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(lock, timeout=120)

    def experiment_id(self, client: MlflowClient) -> str:
        """Id of the experiment, which is created if it does not exist.

        Raises:
            GanpipeError: the experiment was deleted.
        """
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            from mlflow.exceptions import MlflowException

            try:
                if self.artifact_dir is None:
                    return str(client.create_experiment(self.experiment))
                location, tags = Path(self.artifact_dir).as_uri(), {relocation.CHECKOUT_TAG: "checkout"}
                return str(client.create_experiment(self.experiment, artifact_location=location, tags=tags))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = client.get_experiment_by_name(self.experiment)  # another process was faster
                assert found is not None
        if found.lifecycle_stage != "active":
            raise GanpipeError(
                f"register.experiment: the MLflow experiment {self.experiment!r} was deleted; restore it "
                f"(MLFLOW_TRACKING_URI={without_password(self.uri)} mlflow experiments restore --experiment-id "
                f"{found.experiment_id}) or choose another name"
            )
        return str(found.experiment_id)

    def run(
        self,
        stage: str,
        run_key: str,
        *,
        name: str | None = None,
        parent_run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> RunLog:
        """The run of this stage and key: the existing run, else a new one.

        Args:
            stage: the stage's name; for a trial, a name that differs from those of its siblings (`trial-3`).
            run_key: digest of code, params and data.
            name: name of a new run; by default `stage`.
            parent_run_id: makes the run a child of that run, as trials are.
            tags: set on the run, whether it is new or not.

        Raises:
            GanpipeError: MLflow does not answer.
        """
        self.check()
        prepare_client()
        client = self.client()
        identity = _identity(stage, run_key, parent_run_id)
        run, existed = with_retries(lambda: self._open(client, identity, name), self.uri)
        runlog = RunLog(
            self.client,
            run.info.run_id,
            Path(self.spool_dir),
            state=RunState(run.info.experiment_id, existed, finished=existed and run.info.status == "FINISHED"),
        )
        if tags:
            runlog.set_tags(tags)
        return runlog

    def deferred_run(
        self, stage: str, run_key: str, *, name: str, parent_run_id: str | None = None, ends_run: bool = True
    ) -> RunLog:
        """As `run`, but the run is found or made in the background, so that a trial can begin while MLflow does not
        answer. Before that, its `run_id` is only the spool's name, and MLflow does not know it.

        Args:
            ends_run: see `RunLog`.
        """
        prepare_client()
        identity = _identity(stage, run_key, parent_run_id)
        description = {
            "experiment": self.experiment,
            "stage": stage,
            "run_key": run_key,
            "name": name,
            "parent": parent_run_id,
        }
        digest = hashlib.sha256(json.dumps([self.experiment, identity], sort_keys=True).encode()).hexdigest()
        return RunLog(
            self.client,
            f"{_LATER}{digest[:24]}",
            Path(self.spool_dir),
            ends_run=ends_run,
            deferred=DeferredRun(lambda client: str(self._open(client, identity, name)[0].info.run_id), description),
        )

    def resume_spool(self, run_id: str, description: Mapping[str, Any] | None) -> RunLog:
        """The run of a spool that an earlier process left, to send what is in it.

        Args:
            run_id: the spool's name, see `spool.spool_files`.
            description: see `spool.run_description`.
        """
        if description is None:
            return self.attach(run_id)
        of_its_time = replace(self, experiment=description["experiment"])
        return of_its_time.deferred_run(
            description["stage"],
            description["run_key"],
            name=description["name"],
            parent_run_id=description["parent"],
            ends_run=False,
        )

    def _open(self, client: MlflowClient, identity: Mapping[str, str], name: str | None) -> tuple[Run, bool]:
        """The run in its state before this call, which sets it to RUNNING; and whether it existed before."""
        run, found = self._find_or_create(client, identity, name)
        if found and run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        return run, found

    def _find_or_create(self, client: MlflowClient, identity: Mapping[str, str], name: str | None) -> tuple[Run, bool]:
        with self._locked():
            experiment_id = self.experiment_id(client)
            if earlier := find_runs(client, experiment_id, identity):
                return earlier[0], True
            run = client.create_run(experiment_id, tags=dict(identity), run_name=name or identity[STAGE_TAG])
            if sqlite_path(self.uri) is not None:
                return run, False
        # The lock works on this host only, so another host may have made the same run. All hosts keep the oldest run.
        first = find_runs(client, experiment_id, identity)[0]
        if first.info.run_id != run.info.run_id:
            client.delete_run(run.info.run_id)
        return first, first.info.run_id != run.info.run_id

    def attach(self, run_id: str) -> RunLog:
        """A second writer of a run, in another process; closing it does not end the run.

        Raises:
            GanpipeError: MLflow's database is a file that this host does not have.
        """
        path = sqlite_path(self.uri)
        if path is not None and not path.is_file():
            raise GanpipeError(
                f"{path}: MLflow's database is not on this host, so nothing can be logged from here; set "
                "MLFLOW_TRACKING_URI to a server that all hosts reach"
            )
        prepare_client()
        return RunLog(self.client, run_id, Path(self.spool_dir), ends_run=False, state=RunState(existed=True))


def _identity(stage: str, run_key: str, parent_run_id: str | None) -> dict[str, str]:
    """The tags that identify a run, so that it is found again."""
    return {STAGE_TAG: stage, RUN_KEY_TAG: run_key, **({PARENT_TAG: parent_run_id} if parent_run_id else {})}


def get_run_or_none(client: MlflowClient, tracker: Tracker, run_id: str) -> Run | None:
    """The run of this id, even if it is marked as deleted; None if MLflow does not have it, as after `mlflow gc`."""
    try:
        return with_retries(lambda: client.get_run(run_id), tracker.uri)
    except GanpipeError as error:
        if getattr(error.__cause__, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def find_runs(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> list[Run]:
    """The experiment's runs that carry all `tags`, oldest first."""
    conditions = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    return list(client.search_runs([experiment_id], conditions, order_by=["attributes.start_time ASC", "run_id ASC"]))
