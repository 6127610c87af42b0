"""A real MLflow server that goes away while a run is being logged, and comes back."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow_parts import race, start_server, stop_server
from registry_parts import build

from ganpipe.errors import GanpipeError
from ganpipe.packaging.package import download_package
from ganpipe.registry.registration import Candidate, register
from ganpipe.registry.settings import RegisterSettings
from ganpipe.service_kinds import free_port
from ganpipe.tracking.runs import Tracker

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, int, list[subprocess.Popen[bytes]]]]:
    port = free_port()
    processes = [start_server(tmp_path, port)]
    yield tmp_path, port, processes
    stop_server(processes[-1])


def test_an_outage_loses_nothing_and_stops_nobody(
    server: tuple[Path, int, list[subprocess.Popen[bytes]]], caplog: pytest.LogCaptureFixture
) -> None:
    root, port, processes = server
    tracker = Tracker(f"http://127.0.0.1:{port}", "outage", str(root / "spool"))
    slowest, step = 0.0, 0

    def train(seconds: float) -> None:
        nonlocal slowest, step
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.monotonic()
            run.log_metrics({"loss": step, "score": -step}, step)
            slowest = max(slowest, time.monotonic() - begin)
            step += 1
            time.sleep(0.02)

    with tracker.run("train", "k") as run:
        train(3)
        stop_server(processes[-1])
        with pytest.raises(GanpipeError, match="does not answer"):
            tracker.check(1.0)
        run.log_text("grid", "samples/000100.txt")
        train(8)
        assert "MLflow does not answer" in caplog.text
        processes.append(start_server(root, port))
        train(3)
    assert slowest < 0.5
    client = tracker.client()
    for key, sign in (("loss", 1), ("score", -1)):
        history = client.get_metric_history(run.run_id, key)
        assert [(item.step, item.value) for item in history] == [(at, sign * at) for at in range(step)]
        assert [item.timestamp for item in history] == sorted(item.timestamp for item in history)
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert [item.path for item in client.list_artifacts(run.run_id, "samples")] == ["samples/000100.txt"]
    assert "MLflow answers again" in caplog.text
    assert not list((root / "spool").glob("*.jsonl"))


def test_of_two_promotions_at_once_on_a_server_one_wins(
    server: tuple[Path, int, list[subprocess.Popen[bytes]]], tmp_path: Path
) -> None:
    root, port, _ = server
    tracker = Tracker(f"http://127.0.0.1:{port}", "race", str(root / "spool"))
    run_id = tracker.run("register", "k").run_id
    race(tmp_path, tracker, run_id, rounds=5, MLFLOW_TRACKING_URI=tracker.uri)


def test_a_model_is_registered_with_a_server_and_loads_from_it(
    server: tuple[Path, int, list[subprocess.Popen[bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, port, _ = server
    tracker = Tracker(f"http://127.0.0.1:{port}", "registry", str(root / "spool"))
    settings = RegisterSettings(model_name="served", metric="fid_x")
    package = build(root / "built")
    with tracker.run("register", "k") as run:
        candidate = Candidate(package, {"fid_x": 3.0}, "p", run.run_id)
        done = register(candidate, settings, tracker, lambda version: {})
        again = register(candidate, settings, tracker, lambda version: {})
    assert (done.version, done.champion, again.version, again.created) == (1, 1, 1, False)
    downloaded = download_package(tracker, tracker.client().get_model_version("served", "1"), root / "downloaded")
    assert (downloaded / "model.json").read_bytes() == (package / "model.json").read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)
    images = mlflow.pyfunc.load_model(done.alias_uri).predict(pd.DataFrame({"seed": [0, 1]}))
    assert images.shape == (2, 16, 16, 1)
