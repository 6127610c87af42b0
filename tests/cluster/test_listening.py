"""What listens while workers train on a Ray head of this machine's own: nothing that another machine reaches."""

from __future__ import annotations

from pathlib import Path

import psutil
from test_ray_train import make_job
from watching import watching

from ganpipe.training.settings import ClusterSettings
from ganpipe.training.worker import train


def test_workers_listen_on_loopback_only(ray_head: str, shards: Path, tmp_path: Path) -> None:
    seen: set[tuple[str, str]] = set()
    """Name and address of whatever listens, in workers with all their threads."""

    def look(title: str, process: psutil.Process) -> None:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                seen.add((title.split(" ")[0], connection.laddr.ip.removeprefix("::ffff:")))

    job = make_job(shards, tmp_path / "job", "gan", num_images=3200, precision="fp32")
    with watching(ray_head, look):
        train(job, ClusterSettings(num_workers=2, cpus_per_worker=1))
    assert job.store.list()[-1] == 3200
    workers = {address for name, address in seen if "RayTrainWorker" in name}
    assert workers, seen
    assert {address for _, address in seen} == {"127.0.0.1"}, seen
