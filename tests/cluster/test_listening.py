"""What listens while workers train on a Ray head of this machine's own: nothing that another machine reaches."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import psutil
from test_ray_train import make_job

from ganpipe.training.settings import ClusterSettings
from ganpipe.training.worker import train


def _listeners(head: str) -> set[tuple[str, str]]:
    """Name and address of whatever listens among Ray's processes of this head, workers with all their threads."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line, above = process.cmdline(), process.parent()
            # The raylet, the parent of the workers, is told the head's address.
            if any(head in part for part in [*line, *(above.cmdline() if above else [])]):
                for connection in process.net_connections("inet"):
                    if connection.status == psutil.CONN_LISTEN:
                        found.add(((line or [""])[0].split(" ")[0], connection.laddr.ip.removeprefix("::ffff:")))
    return found


def test_workers_listen_on_loopback_only(ray_head: str, shards: Path, tmp_path: Path) -> None:
    seen: set[tuple[str, str]] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            seen.update(_listeners(ray_head))
            ended.wait(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        job = make_job(shards, tmp_path / "job", "gan", num_images=3200, precision="fp32")
        train(job, ClusterSettings(num_workers=2, cpus_per_worker=1))
    finally:
        ended.set()
        watcher.join()
    assert job.store.list()[-1] == 3200
    workers = {address for name, address in seen if "RayTrainWorker" in name}
    assert workers, seen
    assert {address for _, address in seen} == {"127.0.0.1"}, seen
