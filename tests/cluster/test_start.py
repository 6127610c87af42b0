"""What a training starts before its first step: each process costs seconds, and each imports what it needs only."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from test_ray_train import make_job
from watching import watching

from ganpipe.training.settings import ClusterSettings
from ganpipe.training.worker import train


def test_workers_have_the_priority_of_ordinary_processes(ray_head: str) -> None:
    """By default Ray's yield to every process beside them, and a training then hardly moves."""
    import ray

    assert ray.get(ray.remote(lambda: os.getpriority(os.PRIO_PROCESS, 0)).remote()) == 0


def test_the_controller_has_no_torch_and_nobody_serves_datasets(ray_head: str, shards: Path, tmp_path: Path) -> None:
    has_torch: dict[str, bool] = {}

    def look(title: str, process: psutil.Process) -> None:
        if title.startswith("ray::"):
            actor = title.removeprefix("ray::").split(".")[0].split(" ")[0]
            loaded = any("libtorch" in region.path for region in process.memory_maps())
            has_torch[actor] = has_torch.get(actor, False) or loaded

    job = make_job(shards, tmp_path / "job", "gan", num_images=3200, precision="fp32")
    with watching(ray_head, look):
        train(job, ClusterSettings(num_workers=1, cpus_per_worker=1))
    assert job.store.list()[-1] == 3200
    assert has_torch["TrainController"] is False, has_torch
    assert any(has_torch.values()), f"nobody has torch: this looks in the wrong place: {has_torch}"
    assert "DatasetManager" not in has_torch, has_torch
