"""MLflow's server goes away while the pipeline's own stages train on Ray and log to it over http."""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from projects import Project
from reliability import fault

from ganpipe import services

pytestmark = [pytest.mark.slow, pytest.mark.fault]

AWAY_SECONDS = 60
LOSS = "generator_adversarial"


@dataclass
class Server:
    """A real MLflow server that can be killed and started again at its address, with its database."""

    root: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.root.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.root}/server.db"]
        command += ["--artifacts-destination", str(self.root / "files")]
        variables = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=variables, start_new_session=True)
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self.process.poll() is None, (self.root / "server.log").read_text()
            assert time.monotonic() < deadline, "MLflow's server does not start"
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL to the server with its workers."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    server = Server(tmp_path / "server", port)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def checkout(project: Project, server: Server, tmp_path: Path) -> Iterator[Project]:
    """A copy of the project, after its run, that logs to the server."""
    copy = project.copy(tmp_path / "checkout")
    copy = Project(copy.root, {**copy.environment, "MLFLOW_TRACKING_URI": server.url, "PYTHONPATH": str(copy.root)})
    services.ensure("ray", copy.root)  # so that its start is no part of what is measured
    yield copy
    services.stop(copy.root)


@dataclass
class Stage:
    """A stage that runs, and what it prints."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def ends(self, seconds: float) -> int:
        return self.process.wait(timeout=seconds)


def begin(checkout: Project, *command: str) -> Stage:
    log = checkout.root.parent / "stage.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=checkout.root, env=checkout.environment, stdout=file, stderr=file, start_new_session=True
        )
    return Stage(process, log)


def run_of(client: MlflowClient, stage: str) -> Run:
    (run,) = client.search_runs(
        [item.experiment_id for item in client.search_experiments()], f"tags.`ganpipe.stage` = '{stage}'"
    )
    return run


def history(client: MlflowClient, run_id: str, key: str) -> list[Metric]:
    """As MLflow has it, in the order in which it was recorded."""
    return sorted(client.get_metric_history(run_id, key), key=lambda metric: (metric.timestamp, metric.step))


def first_metrics(server: Server, stage: Stage) -> tuple[MlflowClient, str]:
    """Once the training's run has a loss: the client, and the run's id."""
    client = MlflowClient(server.url)
    deadline = time.monotonic() + 240
    while True:
        assert stage.process.poll() is None, stage.said()
        assert time.monotonic() < deadline, stage.said()
        runs = client.search_runs(
            [item.experiment_id for item in client.search_experiments()], "tags.`ganpipe.stage` = 'train'"
        )
        if runs and client.get_metric_history(runs[0].info.run_id, LOSS):
            return client, str(runs[0].info.run_id)
        time.sleep(0.5)


def assert_complete(checkout: Project, client: MlflowClient, run_id: str) -> list[Metric]:
    """Every row of the curves that training itself kept is in MLflow once, in order, with its values."""
    for key in (LOSS, "discriminator_adversarial"):
        with (checkout.root / "artifacts" / "train" / "curves" / f"{key}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) > 5
        logged = history(client, run_id, key)
        assert [metric.step for metric in logged] == [int(row["images_seen"]) for row in rows]
        assert [f"{metric.value:.6g}" for metric in logged] == [row[key] for row in rows]
    with (checkout.root / "artifacts" / "train" / "scores.csv").open() as file:
        scores = {int(row["images_seen"]): row["quick_fid_efficientnet_lite0"] for row in csv.DictReader(file)}
    logged = history(client, run_id, "quick_fid_efficientnet_lite0")
    assert {metric.step: f"{metric.value:.6g}" for metric in logged} == scores
    assert len(logged) == len(scores)
    grids = {item.path for item in client.list_artifacts(run_id, "samples")}
    assert grids == {f"samples/{path.name}" for path in (checkout.root / "artifacts/train/samples").iterdir()}
    return history(client, run_id, LOSS)


def replayed(checkout: Project) -> str:
    """The last words of `ganpipe replay`."""
    return checkout.run("ganpipe", "replay").splitlines()[-1]


def configure(checkout: Project, num_images: int) -> None:
    checkout.set("train.num_images", num_images)
    checkout.set("train.log_every", max(200, num_images // 200))
    checkout.set("train.checkpoint_every", num_images // 8)
    checkout.set("train.samples_at_updates", [10, num_images // 64, num_images // 32])


def speed(said: str) -> int:
    """Images a second, as the last line of progress says."""
    return int(re.findall(r"([\d,]+) images/s", said)[-1].replace(",", ""))


def test_training_goes_on_while_mlflow_is_away_and_nothing_is_missing(checkout: Project, server: Server) -> None:
    # Once quickly, to know how much this machine trains in the time that the outage takes.
    configure(checkout, 8000)
    measured = begin(checkout, "dvc", "repro", "--single-item", "train")
    assert measured.ends(300) == 0, measured.said()
    MlflowClient(server.url).delete_run(run_of(MlflowClient(server.url), "train").info.run_id)
    configure(checkout, speed(measured.said()) * (AWAY_SECONDS + 20))
    with fault(f"MLflow's server away for {AWAY_SECONDS} s during training") as trial:
        stage = begin(checkout, "dvc", "repro", "--single-item", "train")
        client, run_id = first_metrics(server, stage)
        trial.struck()
        server.kill()
        gone = time.time() * 1000
        time.sleep(AWAY_SECONDS)
        back = time.time() * 1000
        server.start()
        trial.recovered()
        assert stage.ends(400) == 0, stage.said()
        assert "MLflow does not answer" in stage.said()
        logged = assert_complete(checkout, client, run_id)
        during = [metric for metric in logged if gone + 5000 < metric.timestamp < back]
        assert len(during) > 5, "training stood still while MLflow was away"
        assert client.get_run(run_id).info.status == "FINISHED"
        assert replayed(checkout) == "nothing was left to send"


def test_what_mlflow_never_took_is_kept_and_sent_by_a_command(checkout: Project, server: Server) -> None:
    with fault("MLflow's server away for good from the middle of a training on") as trial:
        configure(checkout, 60_000)
        stage = begin(checkout, "dvc", "repro", "--single-item", "train")
        client, run_id = first_metrics(server, stage)
        trial.struck()
        server.kill()
        assert stage.ends(500) == 0, stage.said()
        assert "send them once it answers: ganpipe replay" in stage.said()
        assert "artifacts/train: generator after 60,000 images" in stage.said()
        assert "train" not in checkout.stale(), "the outputs are not kept"
        # Nobody answers yet: the command says so, and keeps what it has.
        assert re.search(
            rf"error: MLflow at {server.url} does not answer .*; start it", checkout.run("ganpipe", "replay", code=75)
        )
        # What needs the registry says so at once, and can be tried again.
        assert "does not answer" in checkout.run("ganpipe", "evaluate", code=75)
        server.start()
        assert replayed(checkout) == "the records of 1 runs are complete now"
        trial.recovered()
        assert_complete(checkout, client, run_id)
        assert client.get_run(run_id).info.status == "FINISHED"
        assert {"environment.json", "curves"} <= {item.path for item in client.list_artifacts(run_id)}
        assert replayed(checkout) == "nothing was left to send"


def test_a_search_goes_on_while_mlflow_is_away(checkout: Project, server: Server) -> None:
    with fault("MLflow's server away while the trials of a search begin and end") as trial:
        checkout.set("tune.num_images", 320)
        stage = begin(checkout, "dvc", "repro", "--single-item", "tune")
        client = MlflowClient(server.url)
        deadline = time.monotonic() + 120
        while not client.search_runs([item.experiment_id for item in client.search_experiments()]):
            assert time.monotonic() < deadline, stage.said()
            time.sleep(0.2)
        trial.struck()
        server.kill()  # the search has its run, and no trial has
        assert stage.ends(500) == 0, stage.said()
        assert "best of 2 trials" in stage.said()
        server.start()
        assert replayed(checkout) == "the records of 3 runs are complete now"
        trial.recovered()
        search = run_of(client, "tune")
        trials = client.search_runs([search.info.experiment_id], f"tags.`mlflow.parentRunId` = '{search.info.run_id}'")
        assert len(trials) == 2
        assert {run.info.status for run in [search, *trials]} == {"FINISHED"}
        for run in trials:
            (score,) = history(client, run.info.run_id, "quick_fid_efficientnet_lite0")
            assert score.step == 320
            assert run.data.params
