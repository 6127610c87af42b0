"""Where MLflow is, whether it answers, and how a stage finds its run.

Only MLflow's client is used, never its global active run, for stages, Ray workers and trials log at the same time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import GanpipeError, UnavailableError
from ..redaction import redact, without_password
from .runlog import RunLog, is_permanent
from .stored import Corrupted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ResultT = TypeVar("ResultT")

RUN_KEY_TAG = "ganpipe.run_key"
STAGE_TAG = "ganpipe.stage"
PARENT_TAG = "mlflow.parentRunId"
PATIENCE_SECONDS = 60.0
_SQLITE = "sqlite:///"
_LATER = "later-"
"""Begins the name of a spool whose run MLflow may not have yet."""


def tracking_uri(root: Path) -> str:
    """`MLFLOW_TRACKING_URI`, else `sqlite:///mlflow.db`; a relative SQLite path is taken from `root`."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"{_SQLITE}mlflow.db"
    path = sqlite_path(uri)
    return uri if path is None else f"{_SQLITE}{root.resolve() / path}"


def sqlite_path(uri: str) -> Path | None:
    """The database file of a `sqlite:///…` URI, else None."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def prepare_client() -> None:
    """MLflow's settings for this process, where the user has set none: by default its client tries for minutes before
    it says that nobody answers, and prints a progress bar for each file and an address for each run that ends."""
    for name, value in {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }.items():
        os.environ.setdefault(name, value)
    if without_password(uri := os.environ.get("MLFLOW_TRACKING_URI", "")) != uri:
        # It prints links to runs as it ends them, the password among them.
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name in ("mlflow.store.db.utils", "alembic", "mlflow.pyfunc"):
        logging.getLogger(name).setLevel(logging.WARNING)


# --- does it answer?


def check_reachable(uri: str, timeout_seconds: float = 5.0) -> None:
    """Return if MLflow at `uri` can be used.

    Raises:
        GanpipeError: it does not answer in time, is no MLflow, wants other credentials, or the database is none.
    """
    if uri.startswith(("http://", "https://")):
        _check_server(uri, timeout_seconds)
    elif (path := sqlite_path(uri)) is not None:
        _check_sqlite(path)
    elif uri.startswith("file:") or ("://" not in uri and not uri.startswith(("databricks", "uc"))):
        raise GanpipeError(
            f"MLFLOW_TRACKING_URI: {uri!r} is a folder, which MLflow 3.17 no longer takes; use sqlite:///mlflow.db or "
            "a server's http address"
        )


def _check_server(uri: str, timeout_seconds: float) -> None:
    shown = without_password(uri)
    hint = "start it, or correct MLFLOW_TRACKING_URI (unset: sqlite:///mlflow.db)"
    # Before the clock starts: on a busy machine the import alone takes longer than an answer.
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    answer: list[Any] = []

    def ask() -> None:
        try:
            answer.append(
                http_request(
                    get_default_host_creds(uri),
                    "/api/2.0/mlflow/experiments/search",
                    "GET",
                    params={"max_results": 1},
                    max_retries=0,
                    timeout=timeout_seconds,
                    raise_on_status=False,
                )
            )
        except (MlflowException, OSError) as error:
            answer.append(error)

    # In a thread, for a name server that is away blocks longer than any timeout of the request.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_seconds + 2.0)
    if not answer:
        raise UnavailableError(f"MLflow at {shown} does not answer within {timeout_seconds:g} s; {hint}")
    if isinstance(answer[0], Exception):
        # The innermost cause is what helps: [Errno 111] Connection refused, Read timed out., …
        reason = str(answer[0]).splitlines()[0].rpartition(": ")[2].strip("\"'()> ")[-200:]
        raise UnavailableError(f"MLflow at {shown} does not answer ({reason}); {hint}") from None
    status = answer[0].status_code
    if status in (401, 403):
        raise GanpipeError(
            f"MLflow at {shown} refuses access (status {status}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if status != 200:
        raise GanpipeError(f"{shown} answers with status {status}, as MLflow does not; {hint}")


def _check_sqlite(path: Path) -> None:
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise GanpipeError(f"{path}: MLflow's database cannot be written; check the permissions or MLFLOW_TRACKING_URI")
    if path.exists():
        try:
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
            try:
                connection.execute("PRAGMA schema_version").fetchone()
            finally:
                connection.close()
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                return  # somebody is writing: it works
            raise GanpipeError(
                f"{path}: no usable SQLite database ({error}); move it away or set MLFLOW_TRACKING_URI"
            ) from None


def patiently(action: Callable[[], ResultT], uri: str, seconds: float | None = None) -> ResultT:
    """`action`'s result, trying again while MLflow is away, its database is locked, or its store damages uploads.

    Args:
        seconds: how long; default PATIENCE_SECONDS.

    Raises:
        Corrupted: an upload did not arrive whole for `seconds`.
        GanpipeError: it did not work for `seconds`, or MLflow says that the request is wrong.
    """
    seconds = PATIENCE_SECONDS if seconds is None else seconds
    deadline = time.monotonic() + seconds
    wait_seconds = 0.2
    while True:
        try:
            return action()
        except Corrupted:
            if time.monotonic() + wait_seconds > deadline:
                raise
        except GanpipeError:
            raise
        except Exception as error:  # artifact stores raise errors of their own kinds
            reason = redact(str(error).splitlines()[0])[:300] if str(error) else type(error).__name__
            if is_permanent(error):
                raise GanpipeError(f"MLflow at {without_password(uri)} refuses: {reason}") from error
            if time.monotonic() + wait_seconds > deadline:
                raise UnavailableError(
                    f"MLflow at {without_password(uri)} did not answer for {seconds:g} s: {reason}"
                ) from error
        time.sleep(wait_seconds)
        wait_seconds = min(2 * wait_seconds, 5.0)


@contextmanager
def as_default(uri: str) -> Iterator[None]:
    """A database's registry looks `models:/…` up in the process's default tracking URI, whatever its own one is."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before


# --- runs


@dataclass(frozen=True)
class Tracker:
    """How a process reaches MLflow. Plain strings, so that it travels to Ray workers.

    Attributes:
        uri: absolute tracking URI; the registry's is the same unless MLFLOW_REGISTRY_URI says otherwise.
        experiment: name.
        spool_dir: where records wait that MLflow has not taken yet.
        artifact_dir: where a new experiment keeps its files, for an SQLite database; else None (the server decides).
    """

    uri: str
    experiment: str
    spool_dir: str
    artifact_dir: str | None = None

    @classmethod
    def at(cls, root: Path, experiment: str) -> Tracker:
        """The tracker of the repo in `root`, from the environment."""
        uri = tracking_uri(root)
        artifacts = None if sqlite_path(uri) is None else str(root.resolve() / "mlartifacts")
        return cls(uri, experiment, str(root.resolve() / ".ganpipe" / "tracking"), artifacts)

    def check(self, timeout_seconds: float = 5.0) -> None:
        """See `check_reachable`."""
        check_reachable(self.uri, timeout_seconds)

    def client(self) -> MlflowClient:
        """A client; for SQLite, the database is made first, by one process at a time."""
        prepare_client()
        from mlflow import MlflowClient

        path = sqlite_path(self.uri)
        if path is None:
            return MlflowClient(self.uri)
        with self._locked():
            client = MlflowClient(self.uri)
            client.search_experiments(max_results=1)
        return client

    def _locked(self) -> Any:
        """Held by one process of this host at a time; for SQLite, by one of all that use the database."""
        from filelock import FileLock

        path = sqlite_path(self.uri)
        lock = Path(self.spool_dir) / "lock" if path is None else path.with_name(f"{path.name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(lock, timeout=120)

    def experiment_id(self, client: MlflowClient) -> str:
        """The experiment, made where it is missing.

        Raises:
            GanpipeError: it was deleted.
        """
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            from mlflow.exceptions import MlflowException

            try:
                location = None if self.artifact_dir is None else Path(self.artifact_dir).as_uri()
                return str(client.create_experiment(self.experiment, artifact_location=location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = client.get_experiment_by_name(self.experiment)  # another process was faster
                assert found is not None
        if found.lifecycle_stage != "active":
            raise GanpipeError(
                f"register.experiment: the MLflow experiment {self.experiment!r} was deleted; restore it "
                f"(mlflow experiments restore --experiment-id {found.experiment_id}) or choose another name"
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
        """The run of this stage and key: the one that is there, else a new one.

        Args:
            stage: the stage's name, or for a trial something that tells it from its siblings (`trial-3`).
            run_key: digest of code, params and data.
            parent_run_id: makes it a child run, as a trial's.
            tags: set on the run, found or new.

        Raises:
            GanpipeError: MLflow does not answer.
        """
        self.check()
        prepare_client()
        client = self.client()
        identity = _identity(stage, run_key, parent_run_id)
        run, found = patiently(lambda: self._open(client, identity, name), self.uri)
        runlog = RunLog(
            self.client,
            run.info.run_id,
            Path(self.spool_dir),
            experiment_id=run.info.experiment_id,
            found=found,
            finished_before=found and run.info.status == "FINISHED",
        )
        if tags:
            runlog.set_tags(tags)
        return runlog

    def run_later(
        self, stage: str, run_key: str, *, name: str, parent_run_id: str | None = None, ends_run: bool = True
    ) -> RunLog:
        """As `run`, but the run is found or made in the background, so that nobody waits for MLflow: for a trial, which
        may begin while MLflow is away. Its `run_id` is none of MLflow's before that."""
        prepare_client()
        identity = _identity(stage, run_key, parent_run_id)
        about = {
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
            open_run=lambda client: str(self._open(client, identity, name)[0].info.run_id),
            about={"experiment": self.experiment, **about},
        )

    def left_over(self, run_id: str, about: Mapping[str, Any] | None) -> RunLog:
        """The run of a spool that was left, to send what is in it: see `spool.left_over` and `spool.about`."""
        if about is None:
            return self.attach(run_id)
        of_its_time = replace(self, experiment=about["experiment"])
        return of_its_time.run_later(
            about["stage"], about["run_key"], name=about["name"], parent_run_id=about["parent"], ends_run=False
        )

    def _open(self, client: MlflowClient, identity: Mapping[str, str], name: str | None) -> tuple[Run, bool]:
        """The run as it was, which is RUNNING from here on, and whether it was there."""
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
        # The lock is this host's: another host may have made the same run. All keep the oldest.
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
        return RunLog(self.client, run_id, Path(self.spool_dir), ends_run=False, found=True)


def _identity(stage: str, run_key: str, parent_run_id: str | None) -> dict[str, str]:
    """The tags by which a run is found again."""
    return {STAGE_TAG: stage, RUN_KEY_TAG: run_key, **({PARENT_TAG: parent_run_id} if parent_run_id else {})}


def find_runs(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> list[Run]:
    """The experiment's runs that carry all `tags`, oldest first."""
    conditions = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    return list(client.search_runs([experiment_id], conditions, order_by=["attributes.start_time ASC", "run_id ASC"]))
