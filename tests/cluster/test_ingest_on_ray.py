"""Ingest whose images are decoded by tasks on the hosts of a Ray cluster makes the shards that a single host makes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganpipe.data import sources
from ganpipe.data.ingest.shards import IngestHistory, write_shards
from ganpipe.data.settings import DataSettings
from ganpipe.errors import GanpipeError
from ganpipe.training.ray_tasks import map_on_cluster


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """300 images in two classes, three tasks of them."""
    for number in range(300):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def ingest(pictures: Path, out: Path, **options: object) -> dict[str, bytes]:
    folder = sources.load("folder")
    settings = DataSettings(source="folder", image_size=16, channels=3, samples_per_shard=50)
    source = folder(folder.Settings.model_validate({"path": str(pictures)}))
    write_shards(settings, source, out, **options)  # type: ignore[arg-type]
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_its_shards_are_those_of_a_host(ray_head: str, pictures: Path, tmp_path: Path) -> None:
    assert ingest(pictures, tmp_path / "ray", map_tasks=map_on_cluster) == ingest(pictures, tmp_path / "host")


def test_again_it_decodes_only_what_is_new(
    ray_head: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = IngestHistory(tmp_path / "notes")
    first = ingest(pictures, tmp_path / "ray", map_tasks=map_on_cluster, history=history)
    Image.fromarray(np.full((12, 12, 3), 7, np.uint8)).save(pictures / "a" / "new.png")
    second = ingest(pictures, tmp_path / "ray", map_tasks=map_on_cluster, history=history)
    said = capsys.readouterr().out
    assert f"1 image added, 0 removed: 1 of {len(second) - 1} shards rewritten" in said
    assert first != second == ingest(pictures, tmp_path / "host")


def test_an_image_that_cannot_be_read_is_named(ray_head: str, pictures: Path, tmp_path: Path) -> None:
    (pictures / "a" / "004.png").write_bytes(b"no image")
    with pytest.raises(GanpipeError, match=r"a/004\.png: .*; remove it, or set data\.unreadable to skip"):
        ingest(pictures, tmp_path / "ray", map_tasks=map_on_cluster)


def _process(task: int) -> tuple[int, int]:
    return task, os.getpid()


def test_order_and_other_processes(ray_head: str) -> None:
    found = list(map_on_cluster(_process, range(40)))
    assert [task for task, _ in found] == list(range(40))
    assert os.getpid() not in {process for _, process in found}


def _fails(task: int) -> int:
    if task == 5:
        raise GanpipeError("x.png: damaged")
    return task


def test_an_error_of_a_task_is_its_own(ray_head: str) -> None:
    results = map_on_cluster(_fails, iter(range(10**9)))
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(GanpipeError, match=r"^x\.png: damaged$"):
        next(results)


def test_tasks_are_taken_as_they_are_needed(ray_head: str) -> None:
    taken = [0]

    def tasks() -> Iterator[int]:
        for number in range(1000):
            taken[0] += 1
            yield number

    results = map_on_cluster(_process, tasks())
    next(results)
    results.close()
    assert taken[0] < 100
