"""What a training starts before its first step: each process costs seconds, and each imports what it needs only."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import psutil
from test_ray_train import make_job

from ganpipe.training.settings import ClusterSettings
from ganpipe.training.worker import train


def _actors(head: str) -> dict[str, bool]:
    """Actors of this head by class, and whether their process has torch in memory."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            title, above = (process.cmdline() or [""])[0], process.parent()
            if title.startswith("ray::") and above and any(head in part for part in above.cmdline()):
                name = title.removeprefix("ray::").split(".")[0].split(" ")[0]
                found[name] = any("libtorch" in region.path for region in process.memory_maps())
    return found


def test_the_controller_has_no_torch_and_nobody_serves_datasets(ray_head: str, shards: Path, tmp_path: Path) -> None:
    seen: dict[str, bool] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            for name, has_torch in _actors(ray_head).items():
                seen[name] = seen.get(name, False) or has_torch
            ended.wait(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        job = make_job(shards, tmp_path / "job", "gan", num_images=3200, precision="fp32")
        train(job, ClusterSettings(num_workers=1, cpus_per_worker=1))
    finally:
        ended.set()
        watcher.join()
    assert job.store.list()[-1] == 3200
    assert seen["TrainController"] is False, seen
    assert any(seen.values()), f"nobody has torch: this looks in the wrong place: {seen}"
    assert "DatasetManager" not in seen, seen
