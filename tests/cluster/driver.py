"""Trains on the cluster of RAY_ADDRESS: what the tests of several hosts start on one of them.

Its argument is JSON: shards, read (`data.read`), folder (of the training's work), gan, widths (its settings), settings
(of `train`), hosts (to wait for), cluster (of `cluster`) and, to stop the training at a known place, pause: {folder,
at, until}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.gans import load
from ganpipe.gans.base import Gan, Progress
from ganpipe.training import cluster
from ganpipe.training.settings import ClusterSettings, TrainSettings
from ganpipe.training.worker import TrainingJob, train

PAUSE_SECONDS = 300


@dataclass(frozen=True)
class Pause:
    """A score that notes the number of workers, and holds training up from `at` images on until it is `until`."""

    folder: str
    at: int
    until: int

    def __call__(self, gan: Gan, progress: Progress) -> float:
        import torch.distributed

        num_workers = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        folder = Path(self.folder)
        with (folder / "workers").open("a") as file:
            file.write(f"{num_workers}\n")
        deadline = time.monotonic() + PAUSE_SECONDS
        while progress.images_seen >= self.at and time.monotonic() < deadline:
            (folder / "paused").touch()
            if num_workers == self.until:
                break
            time.sleep(0.1)
        return 0.0


def job_of(
    shards: str,
    read: str,
    folder: str,
    gan: str,
    widths: dict[str, Any],
    settings: dict[str, Any],
    pause: dict[str, Any] | None,
) -> TrainingJob:
    config = load(gan).Config.model_validate(widths)
    values = TrainSettings.model_validate({"gan": gan, **settings})
    score = None if pause is None else Pause(**pause)
    found = ShardSet(shards, read_manifest(Path(shards)), read=read)
    return TrainingJob(gan, gan, config, values, found, folder, score=score)


def main(text: str) -> None:
    import driver  # by its name, so that workers find the class of the score, too
    import ray

    given = json.loads(text)
    wanted = ClusterSettings.model_validate(given.pop("cluster"))
    num_hosts = given.pop("hosts")
    cluster.connect(os.environ["RAY_ADDRESS"])
    while sum(node["Alive"] for node in ray.nodes()) < num_hosts:
        time.sleep(0.2)
    cluster.require(wanted.fewest_workers, wanted.cpus_per_worker, wanted.gpus_per_worker, 60, "cluster")
    train(driver.job_of(**given), wanted)


if __name__ == "__main__":
    main(sys.argv[1])
