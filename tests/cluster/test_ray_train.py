"""Training on real Ray workers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from training_parts import SMALL, largest_difference

from ganpipe.errors import GanpipeError, UnavailableError
from ganpipe.gans import load
from ganpipe.gans.base import Gan, Progress
from ganpipe.training import cluster, interfaces, job_api
from ganpipe.training.settings import ClusterSettings, TrainSettings
from ganpipe.training.state import Diverged
from ganpipe.training.worker import TrainingJob, run_training, train


def make_job(shards: Path, folder: Path, name: str = "dcgan", **settings: Any) -> TrainingJob:
    values = {
        "gan": name,
        "num_images": 800,
        "batch_size": 16,
        "precision": "fp64",
        "checkpoint_every": 400,
        **settings,
    }
    config = load(name).Config.model_validate(SMALL[name])
    return TrainingJob(name, name, config, TrainSettings.model_validate(values), str(shards), str(folder))


def train_here(job: TrainingJob, reports: list[dict[str, float]] | None = None) -> dict[str, Any]:
    """Train in this process, without Ray, and return the last checkpoint."""
    run_training(job, report=None if reports is None else reports.append)
    return job.store.load(job.store.list()[-1])


@pytest.mark.slow
def test_two_workers_train_as_one_over_50_steps(ray_head: str, shards: Path, tmp_path: Path) -> None:
    alone = train_here(make_job(shards, tmp_path / "alone"))
    job = make_job(shards, tmp_path / "together")
    train(job, ClusterSettings(num_workers=2, cpus_per_worker=1))
    assert job.store.list() == [400, 800]
    together = job.store.load(800)
    assert alone["step"] == together["step"] == 50
    assert any("running_mean" in name for name in alone["gan"]), "batch norm's statistics are compared, too"
    assert largest_difference(alone["gan"], together["gan"]) < 1e-7
    for row, other in zip(alone["curves"]["rows"], together["curves"]["rows"], strict=True):
        assert row == pytest.approx(other, abs=1e-5)


@pytest.mark.slow
def test_a_checkpoint_is_taken_up_by_another_number_of_workers(ray_head: str, shards: Path, tmp_path: Path) -> None:
    straight = train_here(make_job(shards, tmp_path / "straight", num_images=1_200, log_every=400))
    for num_workers, num_images in ((1, 400), (2, 800), (1, 1_200)):
        job = make_job(shards, tmp_path / "turns", num_images=num_images, log_every=400)
        train(job, ClusterSettings(num_workers=num_workers, cpus_per_worker=1))
        assert job.store.list()[-1] == num_images
    found = job.store.load(1_200)
    assert found["step"] == straight["step"] == 75
    assert largest_difference(found["gan"], straight["gan"]) < 1e-7
    assert largest_difference(found["ema"], straight["ema"]) < 1e-7
    assert [row["images_seen"] for row in found["curves"]["rows"]] == [
        row["images_seen"] for row in straight["curves"]["rows"]
    ]


def test_a_killed_worker_is_replaced_and_the_result_is_the_same(ray_head: str, shards: Path, tmp_path: Path) -> None:
    settings = {"num_images": 16_000, "checkpoint_every": 1_600, "precision": "fp32"}
    expected = train_here(make_job(shards, tmp_path / "straight", "gan", **settings))
    job = make_job(shards, tmp_path / "killed", "gan", **settings)
    killed: list[int] = []

    def kill_a_worker() -> None:
        while not job.store.list():
            time.sleep(0.02)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess):  # others come and go
                parent = process.parent()
                # Of this test's own Ray only: its raylet, the worker's parent, is told the head's address.
                own = parent is not None and any(ray_head in part for part in parent.cmdline())
                if own and any("RayTrainWorker" in part for part in process.cmdline()):
                    process.kill()
                    killed.append(process.pid)
                    return

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    train(job, ClusterSettings(num_workers=1, cpus_per_worker=1, max_failures=2))
    killer.join()
    assert killed, "nobody was killed, so nothing was tested"
    found = job.store.load(16_000)
    assert found["curves"]["rows"] == expected["curves"]["rows"]
    assert largest_difference(found["gan"], expected["gan"]) == 0


def test_a_training_that_was_stopped_before_its_last_report_reports_again(shards: Path, tmp_path: Path) -> None:
    job = dataclasses.replace(make_job(shards, tmp_path, "gan"), score=lambda gan, progress: 1.5, score_name="distance")
    first: list[dict[str, float]] = []
    train_here(job, first)
    assert first == [{"images_seen": 400.0, "distance": 1.5}, {"images_seen": 800.0, "distance": 1.5}]
    again: list[dict[str, float]] = []
    train_here(job, again)
    assert again == first[-1:]


def test_a_training_that_diverges_is_not_tried_again(ray_head: str, shards: Path, tmp_path: Path) -> None:
    job = make_job(shards, tmp_path, "gan", log_every=16)
    job = dataclasses.replace(
        job, config=job.config.with_optimizers({"generator": {"lr": 1e30}, "discriminator": {"lr": 1e30}})
    )
    with pytest.raises(Diverged, match="training diverged: .* lower the learning rates"):
        train(job, ClusterSettings(num_workers=1, cpus_per_worker=1))


class Failing:
    """A score that notes each of its calls in a file, and raises as code at fault, or storage that is away, does."""

    def __init__(self, calls: Path, error: Exception) -> None:
        self.calls, self.error = calls, error

    def __call__(self, gan: Gan, progress: Progress) -> float:
        with self.calls.open("a") as file:
            file.write("x")
        raise self.error

    def num_calls(self) -> int:
        return len(self.calls.read_text())


@pytest.mark.parametrize(
    ("error", "num_tries", "kind", "message"),
    [
        (ValueError("no such shape"), 1, GanpipeError, r"ValueError: no such shape \(ganpipe/training/observers.py:"),
        pytest.param(GanpipeError("two"), 1, GanpipeError, "^training failed: two$", marks=pytest.mark.slow),
        (ConnectionResetError("the store hung up"), 2, UnavailableError, "ConnectionResetError: the store hung up;"),
        pytest.param(
            UnavailableError("the store is away"), 2, UnavailableError, "^training failed: the store is away; the same",
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)  # fmt: skip
def test_only_what_may_pass_is_tried_again(
    error: Exception, num_tries: int, kind: type[Exception], message: str, ray_head: str, shards: Path, tmp_path: Path
) -> None:
    score = Failing(tmp_path / "calls", error)
    job = dataclasses.replace(make_job(shards, tmp_path, "gan", num_images=64, checkpoint_every=32), score=score)
    with pytest.raises(kind, match=message) as caught:
        train(job, ClusterSettings(num_workers=1, cpus_per_worker=1, max_failures=1))
    assert type(caught.value) is kind
    assert score.num_calls() == num_tries


@pytest.mark.slow
def test_an_error_of_one_worker_of_two_is_its_own(ray_head: str, shards: Path, tmp_path: Path) -> None:
    """The other waits for it meanwhile, and is no lost worker either."""
    score = Failing(tmp_path / "calls", KeyError("a"))
    job = dataclasses.replace(make_job(shards, tmp_path, "gan", num_images=64, checkpoint_every=32), score=score)
    with pytest.raises(GanpipeError, match=r"KeyError: 'a' \(.*; an error of the code, which another try would meet"):
        train(job, ClusterSettings(num_workers=2, cpus_per_worker=0.5, max_failures=2))
    assert score.num_calls() == 1


def test_workers_run_the_code_of_the_process_that_joined(ray_head: str, tmp_path: Path) -> None:
    # A run's workspace holds another revision of the code than the one that this machine has installed.
    shutil.copytree(Path(cluster.__file__).parents[1], tmp_path / "ganpipe")
    code = (
        "import ganpipe, ray; from ganpipe.training import cluster; cluster.connect(__import__('sys').argv[1])\n"
        "where = ray.remote(lambda: __import__('ganpipe').__file__)\n"
        "print(ganpipe.__file__, ray.get(where.remote()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code, ray_head]
    done = subprocess.run(command, env=environment, cwd=tmp_path.parent, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == [str(tmp_path / "ganpipe" / "__init__.py")] * 2


def test_resources_that_the_cluster_does_not_have_are_an_error_in_time(ray_head: str) -> None:
    began = time.monotonic()
    with pytest.raises(GanpipeError, match=r"cluster: asks for 3 workers of 64 CPUs and 0 GPUs each.*room for 0"):
        cluster.require(3, 64, 0, wait_seconds=1, key="cluster")
    with pytest.raises(GanpipeError, match=r"tune: asks for 1 workers of 1 CPUs and 1 GPUs each"):
        cluster.require(1, 1, 1, wait_seconds=0, key="tune")
    assert time.monotonic() - began < 30
    cluster.require(1, 1, 0, wait_seconds=0, key="cluster")


def test_more_workers_than_images_in_a_batch_are_an_error(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(GanpipeError, match=r"cluster.num_workers: got 4; .*train.batch_size is 2"):
        train(make_job(shards, tmp_path, batch_size=2), ClusterSettings(num_workers=4))


def test_workers_talk_on_the_interface_of_their_address_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")  # so that what is set below is taken back
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "fast0")
    interfaces.use_cluster_interface()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    assert os.environ["NCCL_SOCKET_IFNAME"] == "fast0"


def test_a_job_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(UnavailableError, match=r"Ray's job server at http://127.0.0.1:1 cannot be used: .*RAY_ADDRESS"):
        job_api.client_of("http://127.0.0.1:1")


def connect_elsewhere(address: str) -> tuple[str, float]:
    """The last line that a process of its own says that joins the cluster at `address`, and its seconds."""
    began = time.monotonic()
    code = f"from ganpipe.training.cluster import connect; connect({address!r})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode != 0
    return result.stderr.strip().splitlines()[-1], time.monotonic() - began


def test_an_address_where_nobody_answers_is_named_at_once() -> None:
    line, seconds = connect_elsewhere("127.0.0.1:1")
    assert line.startswith("ganpipe.errors.UnavailableError: Ray at 127.0.0.1:1 cannot be used: [Errno 111]")
    assert line.endswith("check RAY_ADDRESS and that the cluster runs")
    assert seconds < 20


@pytest.mark.slow
def test_an_address_where_something_else_listens_is_an_error_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        line, seconds = connect_elsewhere(f"127.0.0.1:{other.getsockname()[1]}")
    assert line.startswith("ganpipe.errors.UnavailableError: Ray at 127.0.0.1:")
    assert seconds < 90
