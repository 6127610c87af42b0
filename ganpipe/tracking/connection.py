"""Where MLflow is, whether it answers, and how long to wait for it."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import GanpipeError, UnavailableError
from ..redaction import redact, without_password
from .read_back import Corrupted
from .run_log import is_permanent

ResultT = TypeVar("ResultT")

PATIENCE_SECONDS = 60.0
"""How long a call is retried while MLflow does not answer."""
_SQLITE = "sqlite:///"


def tracking_uri(root: Path) -> str:
    """`MLFLOW_TRACKING_URI`, else `sqlite:///mlflow.db`; a relative SQLite path is taken from `root`."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"{_SQLITE}mlflow.db"
    path = sqlite_path(uri)
    return uri if path is None else f"{_SQLITE}{root.resolve() / path}"


def sqlite_path(uri: str) -> Path | None:
    """The database file of a `sqlite:///…` URI, else None."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def prepare_client() -> None:
    """Set MLflow's environment variables for this process, except those that the user has set. By default MLflow's
    client retries for minutes before it reports that a server does not answer, and prints a progress bar for each file
    and an address for each run that ends."""
    for name, value in {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }.items():
        os.environ.setdefault(name, value)
    if without_password(uri := os.environ.get("MLFLOW_TRACKING_URI", "")) != uri:
        # MLflow prints a link to each run that ends, with the password in it.
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name in ("mlflow.store.db.utils", "alembic", "mlflow.pyfunc"):
        logging.getLogger(name).setLevel(logging.WARNING)


def check_reachable(uri: str, timeout_seconds: float = 5.0) -> None:
    """Return if MLflow at `uri` can be used.

    Raises:
        UnavailableError: it does not answer within `timeout_seconds`.
        GanpipeError: what answers is not MLflow, it wants other credentials, or the file is not a usable database.
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

    # In a thread, because a name server that does not answer blocks longer than any timeout of the request.
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
        raise GanpipeError(f"{shown} answers with status {status}, so it is not MLflow; {hint}")


def _check_sqlite(path: Path) -> None:
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise GanpipeError(f"{path}: MLflow's database cannot be written; check the permissions or MLFLOW_TRACKING_URI")
    if path.exists():
        try:
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
            try:
                connection.execute("PRAGMA schema_version").fetchone()
            finally:
                connection.close()
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                return  # another process is writing, so the database works
            raise GanpipeError(
                f"{path}: not a usable SQLite database ({error}); move it away or set MLFLOW_TRACKING_URI"
            ) from None


def with_retries(action: Callable[[], ResultT], uri: str, seconds: float | None = None) -> ResultT:
    """Call `action` until it succeeds, while MLflow does not answer, its database is locked, or its store damages
    uploads.

    Args:
        uri: MLflow's address, for error messages.
        seconds: how long to retry; by default PATIENCE_SECONDS.

    Returns:
        The result of `action`.

    Raises:
        Corrupted: after `seconds`, an upload still did not arrive as it was sent.
        UnavailableError: `action` did not succeed within `seconds`.
        GanpipeError: MLflow says that the request is wrong, or `action` raised one.
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
def as_default_tracking_uri(uri: str) -> Iterator[None]:
    """Make `uri` the process's default tracking URI within this context.

    The registry of a database resolves `models:/…` with that default, and not with the URI of the client that asks.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before
