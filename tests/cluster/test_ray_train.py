"""Training on real Ray workers."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from training_parts import SMALL, largest_difference

from ganpipe.errors import GanpipeError
from ganpipe.gans import load
from ganpipe.training import cluster
from ganpipe.training.settings import ClusterSettings, TrainSettings
from ganpipe.training.state import Diverged
from ganpipe.training.worker import TrainingJob, train


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


def test_two_workers_train_as_one_over_50_steps(ray_head: str, shards: Path, tmp_path: Path) -> None:
    states = []
    for num_workers in (1, 2):
        job = make_job(shards, tmp_path / str(num_workers))
        train(job, ClusterSettings(num_workers=num_workers, cpus_per_worker=1))
        assert job.store.list() == [400, 800]
        states.append(job.store.load(800))
    alone, together = states
    assert alone["step"] == together["step"] == 50
    parameters = {name for name, _ in load("dcgan").named_parameters(make_state(job).gan)}
    weights = [{name: state["gan"][name] for name in parameters} for state in states]
    assert largest_difference(*weights) < 1e-7
    for row, other in zip(alone["curves"]["rows"], together["curves"]["rows"], strict=True):
        assert row == pytest.approx(other, abs=1e-5)


def make_state(job: TrainingJob) -> Any:
    from ganpipe.data.manifest import read_manifest
    from ganpipe.training.feed import spec_of
    from ganpipe.training.state import TrainingState

    return TrainingState(job.gan, job.config, spec_of(read_manifest(Path(job.shards))), job.settings)


def test_a_killed_worker_is_replaced_and_the_result_is_the_same(ray_head: str, shards: Path, tmp_path: Path) -> None:
    settings = {"num_images": 16_000, "checkpoint_every": 1_600, "precision": "fp32"}
    straight = make_job(shards, tmp_path / "straight", "gan", **settings)
    train(straight, ClusterSettings(num_workers=1, cpus_per_worker=1))
    job = make_job(shards, tmp_path / "killed", "gan", **settings)
    killed: list[int] = []

    def kill_a_worker() -> None:
        while not job.store.list():
            time.sleep(0.02)
        for process in psutil.process_iter(["cmdline", "pid"]):
            if any("RayTrainWorker" in part for part in process.info["cmdline"] or []):
                killed.append(process.info["pid"])
                os.kill(process.info["pid"], signal.SIGKILL)
                return

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    train(job, ClusterSettings(num_workers=1, cpus_per_worker=1, max_failures=2))
    killer.join()
    assert killed, "nobody was killed, so nothing was tested"
    expected, found = straight.store.load(16_000), job.store.load(16_000)
    assert found["curves"]["rows"] == expected["curves"]["rows"]
    assert largest_difference(found["gan"], expected["gan"]) == 0


def test_a_training_that_diverges_is_not_tried_again(ray_head: str, shards: Path, tmp_path: Path) -> None:
    job = make_job(shards, tmp_path, "gan", log_every=16)
    job = dataclasses.replace(
        job, config=job.config.with_adam({"generator": {"lr": 1e30}, "discriminator": {"lr": 1e30}})
    )
    with pytest.raises(Diverged, match="training diverged: .* lower the learning rates"):
        train(job, ClusterSettings(num_workers=1, cpus_per_worker=1))


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


def test_an_address_where_nobody_answers_is_named() -> None:
    import subprocess
    import sys

    code = "from ganpipe.training.cluster import connect; connect('127.0.0.1:1')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "GanpipeError: Ray at 127.0.0.1:1 cannot be used" in result.stderr
    assert "check RAY_ADDRESS" in result.stderr
