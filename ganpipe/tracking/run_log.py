"""One MLflow run, written in the background, so that training goes on while MLflow is slow or does not answer.

Records go to a spool first, and one thread sends them in order. A metric's timestamp is fixed when it is recorded, so
sending it a second time after an answer was lost changes nothing (MLflow keeps one row per key, step, timestamp and
value). A metric is left out if the run already has this metric at this step. Therefore a training that continues from a
checkpoint does not log the steps after the checkpoint twice, even if another process sends the records of the process
that was killed.
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..redaction import redact
from .spool import Entry, Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger(__name__)

MAX_KEY_LENGTH = 250
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
MAX_METRICS_PER_CALL = 1000
MAX_ITEMS_PER_CALL = 100
FLUSH_AFTER_SECONDS = 2.0
FLUSH_AFTER_ENTRIES = 200
FIRST_WAIT_SECONDS = 0.5
"""Time before the first retry; it doubles up to LONGEST_WAIT_SECONDS."""
LONGEST_WAIT_SECONDS = 15.0
_PERMANENT = {
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "INVALID_STATE",
    "ENDPOINT_NOT_FOUND",
}
_CONCURRENT_WRITE = re.compile("IntegrityError|UniqueViolation")


def is_permanent(error: BaseException) -> bool:
    """Whether a retry would fail, too, because MLflow answered that the request itself is wrong.

    If two processes set the same new tag or alias at the same time, the database takes one row and MLflow calls the
    other request bad. That error is not permanent, because a retry finds the row.
    """
    return getattr(error, "error_code", None) in _PERMANENT and not _CONCURRENT_WRITE.search(str(error))


def clean_key(key: str) -> str:
    """`key` as a name that MLflow accepts: other characters become `_`, and at most MAX_KEY_LENGTH characters."""
    cleaned = re.sub(r"[^\w./: -]", "_", key, flags=re.ASCII).strip("/") or "_"
    return shorten(cleaned, MAX_KEY_LENGTH)


def shorten(text: str, limit: int) -> str:
    """`text` in at most `limit` characters: if it is longer, it is cut and ends in a digest of the whole text."""
    if len(text) <= limit:
        return text
    mark = f"..{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return text[: limit - len(mark)] + mark


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys: {"train": {"gan": "gan"}} -> {"train.gan": "gan"}; lists are not flattened."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        dotted = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, dotted))
        else:
            flat[dotted] = value
    return flat


@dataclass(frozen=True)
class RunState:
    """What is known of a run when its log is opened.

    Attributes:
        experiment_id: for the address of the run's page; empty if it is not known.
        existed: an earlier process made the run.
        finished: it made the run and finished it.
    """

    experiment_id: str = ""
    existed: bool = False
    finished: bool = False


@dataclass(frozen=True)
class DeferredRun:
    """A run that the background thread has to find or make, because MLflow may be away now.

    Attributes:
        open_run: finds or makes the run and returns its id.
        description: what `open_run` needs to know of the run, as JSON: another process can then send what is in the
            spool.
    """

    open_run: Callable[[MlflowClient], str]
    description: Entry


class RunLog:
    """Writes one run in the background. Close it, or use it as a context manager: an exception ends the run as FAILED.

    Attributes:
        run_id: id of the run in MLflow; for a deferred run, the spool's name until the run is found or made.
        existed_before: an earlier process made the run.
        finished_before: an earlier process made the run and finished it.
    """

    def __init__(
        self,
        make_client: Callable[[], MlflowClient],
        run_id: str,
        spool_dir: Path,
        *,
        ends_run: bool = True,
        state: RunState | None = None,
        deferred: DeferredRun | None = None,
    ) -> None:
        """Use `Tracker.run`, `Tracker.deferred_run` or `Tracker.attach` instead.

        Args:
            make_client: called in the background thread.
            run_id: the run's id in MLflow; with `deferred`, a name for the spool until the run is found or made.
            ends_run: closing sets the run's status; false for a second writer.
            state: what is known of the run; by default nothing.
            deferred: the run is found or made in the background.
        """
        state = state or RunState()
        self.run_id = run_id
        self.experiment_id = state.experiment_id
        self.existed_before = state.existed
        self.finished_before = state.finished
        self._make_client = make_client
        self._open_run = None if deferred is None else deferred.open_run
        self._ends_run = ends_run
        self._spool = Spool(spool_dir, run_id, None if deferred is None else deferred.description)
        self._wake = threading.Condition()
        self._hurry = False
        self._closing = False
        self._given_up = False
        self._closed = False
        self._first_waiting_since: float | None = time.monotonic() if len(self._spool) else None
        self._max_entries = FLUSH_AFTER_ENTRIES
        self.away_since: float | None = None
        """When MLflow stopped answering (monotonic seconds), None while it answers."""
        self._thread = threading.Thread(target=self._send_all, name=f"mlflow-{run_id[:8]}", daemon=True)
        self._thread.start()

    # --- what callers record

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers.

        Args:
            step: real images seen, over all workers; must increase from call to call.
        """
        numbers = {clean_key(key): float(value) for key, value in values.items()}
        self._record({"kind": "metrics", "step": int(step), "time": int(time.time() * 1000), "values": numbers})

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Record settings, nested ones under dotted keys. If the run has a setting with another value already, that
        value stays (MLflow's params cannot change), and the new value becomes the tag `changed.<key>`."""
        texts = {clean_key(key): shorten(str(value), MAX_PARAM_LENGTH) for key, value in flatten(values).items()}
        self._record({"kind": "params", "values": texts})

    def set_tags(self, values: Mapping[str, Any]) -> None:
        """Record tags; a later value of the same key replaces an earlier one."""
        texts = {clean_key(key): shorten(str(value), MAX_TAG_LENGTH) for key, value in values.items()}
        self._record({"kind": "tags", "values": texts})

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Record a file (a sample grid, a table); it is copied before this returns. In MLflow, it replaces a file of
        the same name.

        Args:
            folder: of the run's artifacts; empty for the top.
        """
        self._record({"kind": "artifact", "folder": folder}, path)

    def log_text(self, text: str, name: str) -> None:
        """Record a text as the file `name`, which may be a path with folders."""
        self.log_bytes(text.encode(), name)

    def log_bytes(self, content: bytes, name: str) -> None:
        """Record a file's content as the file `name`, which may be a path with folders."""
        folder, _, base = name.rpartition("/")
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / base
            path.write_bytes(content)
            self.log_artifact(path, folder)

    def _record(self, entry: Entry, file: Path | None = None) -> None:
        if self._closed:
            raise RuntimeError(f"the log of run {self.run_id} is closed")
        self._spool.append(entry, file)
        with self._wake:
            if self._first_waiting_since is None:
                self._first_waiting_since = time.monotonic()
                self._wake.notify_all()  # the thread then waits until this entry is old enough, not forever
            elif len(self._spool) >= FLUSH_AFTER_ENTRIES:
                self._wake.notify_all()

    # --- the end

    def flush(self, timeout_seconds: float = 30.0) -> bool:
        """Send what is waiting. Returns early if MLflow does not answer.

        Returns:
            Whether everything has been sent.
        """
        with self._wake:
            self._hurry = True
            self._wake.notify_all()
            self._wake.wait_for(lambda: not len(self._spool) or self.away_since is not None, timeout_seconds)
            return not len(self._spool)

    def close(self, status: str = "FINISHED", timeout_seconds: float = 60.0) -> bool:
        """End the run and wait until everything is sent.

        If MLflow does not answer, the rest is kept in a local file, and the log says how to send it later.

        Args:
            status: FINISHED, FAILED or KILLED.
            timeout_seconds: how long to wait.

        Returns:
            Whether everything has been sent.
        """
        if self._closed:
            return not len(self._spool)
        if self._ends_run:
            self._spool.adopt()  # records of a second writer that gave up or died
            self._spool.append({"kind": "end", "status": status, "time": int(time.time() * 1000)})
        self._closed = True
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(timeout_seconds)
        with self._wake:
            self._given_up = True
            self._wake.notify_all()
        left = len(self._spool)
        if left:
            log.warning(
                "MLflow does not answer; %d records of run %s are kept in %s. Nothing else is lost; send them once it "
                "answers: ganpipe replay",
                left,
                self.run_id,
                self._spool.path,
            )
        self._spool.close()
        return not left

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close("FINISHED")
        else:
            self.close("FAILED" if issubclass(kind, Exception) else "KILLED", timeout_seconds=10.0)

    # --- the background thread

    def _send_all(self) -> None:
        client: MlflowClient | None = None
        wait_seconds = FIRST_WAIT_SECONDS
        while self._wait_for_work():
            try:
                client = client or self._make_client()
                if self._open_run is not None:
                    self.run_id, self._open_run = self._open_run(client), None
                self._send_some(client)
            except Exception as error:  # if this thread died, its records would not be sent
                if self._open_run is None and is_permanent(error):
                    self._set_aside_refused(error)
                    continue
                self._note_away(error)
                with self._wake:
                    self._wake.wait_for(lambda: self._given_up, wait_seconds * random.uniform(0.75, 1.25))
                wait_seconds = min(2 * wait_seconds, LONGEST_WAIT_SECONDS)
            else:
                wait_seconds = FIRST_WAIT_SECONDS
                self._note_back()

    def _wait_for_work(self) -> bool:
        """Wait until something has to be sent now. False if nothing will be: all is sent and the log is closing, or the
        time to close is over."""
        with self._wake:
            while not self._given_up:
                waiting = len(self._spool)
                if not waiting:
                    self._first_waiting_since = None
                    self._hurry = False
                    self._wake.notify_all()
                    if self._closing:
                        return False
                    self._wake.wait()
                    continue
                age = time.monotonic() - (self._first_waiting_since or 0.0)
                rest = FLUSH_AFTER_SECONDS - age
                if self._closing or self._hurry or waiting >= FLUSH_AFTER_ENTRIES or rest <= 0:
                    return True
                self._wake.wait(rest)
            return False

    def _send_some(self, client: MlflowClient) -> None:
        entries = self._spool.first(self._max_entries)
        if entries[0]["kind"] == "metrics":
            count = next((at for at, entry in enumerate(entries) if entry["kind"] != "metrics"), len(entries))
            self._send_metrics(client, entries[:count])
        else:
            count = 1
            send_entry(client, self.run_id, entries[0])
        self._spool.remove(count)
        self._max_entries = FLUSH_AFTER_ENTRIES

    def _send_metrics(self, client: MlflowClient, entries: list[Entry]) -> None:
        from mlflow.entities import Metric

        # The known steps are read each time, because another process that has adopted a dead process's records may send
        # the same steps.
        with self._spool.sending_lock():
            known = KnownSteps(client, self.run_id)
            metrics: list[Metric] = []
            for entry in entries:
                for key, value in entry["values"].items():
                    if known.add(key, entry["step"]):
                        metrics.append(Metric(key, value, entry["time"], entry["step"]))
            for start in range(0, len(metrics), MAX_METRICS_PER_CALL):
                client.log_batch(self.run_id, metrics=metrics[start : start + MAX_METRICS_PER_CALL], synchronous=True)

    def _set_aside_refused(self, error: Exception) -> None:
        """One of the oldest entries is wrong: send them one by one until that entry is found, then set it aside."""
        entries = self._spool.first(self._max_entries)
        if len(entries) > 1 and self._max_entries > 1:
            self._max_entries = 1
            return
        log.warning(
            "MLflow refuses a record of run %s (%s); it is in %s", self.run_id, error, self._spool.rejected_path
        )
        self._spool.reject(1, redact(str(error)))

    def _note_away(self, error: Exception) -> None:
        if self.away_since is None:
            with self._wake:
                self.away_since = time.monotonic()
                self._wake.notify_all()
            reason = redact(str(error).splitlines()[0] if str(error) else repr(error))[:300]
            log.warning("MLflow does not answer (%s); training goes on, records wait in %s", reason, self._spool.path)

    def _note_back(self) -> None:
        if self.away_since is not None:
            log.warning("MLflow answers again, after %.0f s", time.monotonic() - self.away_since)
            self.away_since = None


class KnownSteps:
    """The steps at which a run has each metric. A metric's history is read only if a step is not after its last
    step."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._last = {metric.key: metric.step for metric in client.get_run(run_id).data._metric_objs}
        self._all: dict[str, set[int]] = {}
        self._added: dict[str, set[int]] = {}

    def add(self, key: str, step: int) -> bool:
        """Add a step. Returns whether the run does not have the metric at this step yet."""
        is_new = step > self._last.get(key, -1) or step not in self._steps(key)
        self._last[key] = max(step, self._last.get(key, step))
        self._added.setdefault(key, set()).add(step)
        return is_new

    def _steps(self, key: str) -> set[int]:
        if key not in self._all:
            self._all[key] = {metric.step for metric in self._client.get_metric_history(self._run_id, key)}
        return self._all[key] | self._added.get(key, set())


def send_entry(client: MlflowClient, run_id: str, entry: Entry) -> None:
    """Send an entry that is not a metric. Sending it twice has the same effect as once."""
    from mlflow.entities import Param, RunTag

    if entry["kind"] == "end":
        client.set_terminated(run_id, entry["status"], entry["time"])
    elif entry["kind"] == "artifact":
        client.log_artifact(run_id, entry["file"], entry["folder"] or None)
    elif entry["kind"] == "tags":
        _in_chunks(entry["values"], lambda part: client.log_batch(run_id, tags=[RunTag(*item) for item in part]))
    elif entry["kind"] == "params":
        known = client.get_run(run_id).data.params
        new = {key: value for key, value in entry["values"].items() if key not in known}
        changed = {
            shorten(f"changed.{key}", MAX_KEY_LENGTH): value
            for key, value in entry["values"].items()
            if key in known and known[key] != value
        }
        _in_chunks(new, lambda part: client.log_batch(run_id, params=[Param(*item) for item in part]))
        _in_chunks(changed, lambda part: client.log_batch(run_id, tags=[RunTag(*item) for item in part]))
    else:
        raise ValueError(f"unknown kind of record: {entry['kind']!r}")


def _in_chunks(values: Mapping[str, str], send: Callable[[list[tuple[str, str]]], Any]) -> None:
    items = list(values.items())
    for start in range(0, len(items), MAX_ITEMS_PER_CALL):
        send(items[start : start + MAX_ITEMS_PER_CALL])
