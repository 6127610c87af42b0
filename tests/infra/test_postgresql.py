"""MLflow on PostgreSQL: decision 8 (a run's params decide which of two promotions comes first) holds there, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_parts import race
from object_store import free_port
from postgresql import serving

from ganpipe.errors import GanpipeError
from ganpipe.tracking.runs import Tracker

pytestmark = pytest.mark.slow
PASSWORD = "postgres-secret-of-the-tests"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty database; its password is in the environment only."""
    script = tmp_path_factory.mktemp("sql") / "databases.sql"
    script.write_text("CREATE DATABASE mlflow;\n")
    with serving("ganpipe", PASSWORD, [script]) as port, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        yield f"postgresql+psycopg2://ganpipe@127.0.0.1:{port}/mlflow"


def test_of_two_promotions_at_once_one_wins_on_postgresql(database: str, tmp_path: Path) -> None:
    tracker = Tracker(database, "race", str(tmp_path / "spool"))
    run_id = tracker.run("register", "k").run_id
    race(tmp_path, tracker, run_id, rounds=8, MLFLOW_TRACKING_URI=database)
    assert PASSWORD not in tracker.uri


def test_and_on_a_server_of_two_processes_before_it(database: str, tmp_path: Path) -> None:
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
    command += ["--backend-store-uri", database, "--artifacts-destination", str(tmp_path / "files")]
    log = tmp_path / "server.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            command, env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        tracker = Tracker(f"http://127.0.0.1:{port}", "served", str(tmp_path / "spool"))
        deadline = time.monotonic() + 120
        while True:
            try:
                tracker.check(2.0)
                break
            except GanpipeError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
        client = tracker.client()
        # A registry of its own: the other test has used the name.
        for version in client.search_model_versions("name = 'tests'"):
            client.delete_model_version("tests", version.version)
        if client.search_registered_models("name = 'tests'"):
            client.delete_registered_model("tests")
        race(tmp_path, tracker, tracker.run("register", "k").run_id, rounds=5, MLFLOW_TRACKING_URI=tracker.uri)
        assert PASSWORD not in log.read_text()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
