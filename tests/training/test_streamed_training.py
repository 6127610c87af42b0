"""A training that streams its shards: the bytes of one that reads the cache, and an end at a checkpoint where a shard
cannot be read."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from fault_parts import Training, new_training
from fault_parts import start as start_processes
from ray_parts import write_blobs

from ganpipe.data.loading.open_shard import OpenShard
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.loading.order import SampleOrder
from ganpipe.data.loading.stream import StreamedDataset
from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.errors import GanpipeError, UnavailableError
from ganpipe.evaluation.extractors import efficientnet_lite0
from ganpipe.evaluation.reference import compute_reference
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.training.distributed import World
from ganpipe.training.worker import TrainingJob, run_training


@pytest.fixture
def many_shards(tmp_path: Path) -> Path:
    """Shards of 25 images."""
    return write_blobs(tmp_path / "blobs", 300, samples_per_shard=25)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANPIPE_CACHE", str(tmp_path / "cache"))


def streaming(training: Training, **settings: Any) -> Training:
    """The same training, reading the shards themselves."""
    shards = dataclasses.replace(training.job.shards, read="stream")
    chosen = training.job.settings.model_copy(update=settings)
    return dataclasses.replace(training, job=dataclasses.replace(training.job, shards=shards, settings=chosen))


def made(training: Training) -> dict[str, Any]:
    run_training(training.job)
    return training.made()


def test_streamed_or_cached_it_makes_the_same_bytes(many_shards: Path, tmp_path: Path) -> None:
    by_window = {}
    for window in (None, 2):
        cached = new_training(many_shards, tmp_path / f"cached-{window}", "dcgan", window_shards=window, num_images=960)
        streamed = streaming(
            new_training(many_shards, tmp_path / f"streamed-{window}", "dcgan", window_shards=window, num_images=960)
        )
        by_window[window] = made(cached)
        assert made(streamed) == by_window[window]
    assert by_window[None]["generator.safetensors"] != by_window[2]["generator.safetensors"]
    assert not list((tmp_path / "cache").glob("shards/*"))  # read in place


@pytest.mark.slow
def test_killed_with_two_workers_it_goes_on_to_the_same_bytes(many_shards: Path, tmp_path: Path) -> None:
    settings = {"window_shards": 2, "num_images": 1600, "checkpoint_every": 320}
    whole = streaming(new_training(many_shards, tmp_path / "whole", "dcgan", **settings))
    assert [child.end() for child in start_processes(whole, world_size=2)] == [0, 0]
    broken = streaming(new_training(many_shards, tmp_path / "broken", "dcgan", **settings))
    children = start_processes(broken, at="halfway through writing a checkpoint", world_size=2)
    for child in children:
        child.end()
    assert [child.end() for child in start_processes(broken, world_size=2)] == [0, 0]
    assert broken.made() == whole.made()


def _train_noting(rank: int, job: TrainingJob, meeting: str) -> None:
    """Notes the numbers of the shards that this worker reads."""
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
    read, shard = set[int](), StreamedDataset._shard

    def noted(dataset: StreamedDataset, number: int) -> OpenShard:
        read.add(number)
        return shard(dataset, number)

    StreamedDataset._shard = noted  # type: ignore[method-assign]
    run_training(job, World(rank, 2))
    Path(job.folder, f"read-{rank}").write_text(" ".join(map(str, sorted(read))))


@pytest.mark.slow
def test_with_lanes_each_worker_reads_shards_of_its_own(many_shards: Path, tmp_path: Path) -> None:
    settings = {"window_shards": 2, "shard_lanes": 2, "num_images": 960}
    cached = new_training(many_shards, tmp_path / "cached", "dcgan", **settings)
    assert [child.end() for child in start_processes(cached, world_size=2)] == [0, 0]
    streamed = streaming(new_training(many_shards, tmp_path / "streamed", "dcgan", **settings))
    arguments = (streamed.job, str(tmp_path / "meeting"))
    torch.multiprocessing.start_processes(_train_noting, arguments, nprocs=2, start_method="spawn")
    assert streamed.made() == cached.made()
    first, second = ([int(n) for n in Path(streamed.job.folder, f"read-{rank}").read_text().split()] for rank in (0, 1))
    num_shards = len(streamed.job.shards.manifest.shards_of("train"))
    assert sorted({*first, *second}) == list(range(num_shards))
    assert len({*first} & {*second}) <= 1  # the shard in which a lane ends and the other begins


def fetching(training: Training, folder: Path) -> tuple[Training, Path]:
    """The training on a host that has to fetch its shards, and the file at the URL of the last one that it needs."""
    manifest, remote = read_manifest(folder), folder.with_name("remote")
    shutil.copytree(folder, remote)
    urls = {shard.name: f"file://{remote}/{shard.name}" for shard in manifest.shards}
    found = ShardSet("not-here", manifest, urls, read="stream")
    sizes_S = np.array([shard.num_samples for shard in manifest.shards_of("train")])
    order = SampleOrder(sizes_S, training.job.settings.seed, training.job.settings.window_shards)
    last, _ = order.window_at(int(sizes_S.sum()) - 1)
    job = dataclasses.replace(training.job, shards=found)
    return dataclasses.replace(training, job=job), remote / manifest.shards_of("train")[last[-1]].name


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "kind", "text"),
    [(Path.unlink, GanpipeError, "is not in the DVC remote"), (flip_a_bit, UnavailableError, "the content is not")],
)
def test_a_shard_that_cannot_be_read_ends_it_at_a_checkpoint(
    many_shards: Path, tmp_path: Path, damage: Callable[[Path], None], kind: type, text: str
) -> None:
    settings = {"window_shards": 2, "num_images": 960, "checkpoint_every": 1000}
    expected = made(streaming(new_training(many_shards, tmp_path / "undisturbed", "dcgan", **settings)))
    training, shard = fetching(new_training(many_shards, tmp_path / "disturbed", "dcgan", **settings), many_shards)
    original = shard.read_bytes()
    damage(shard)
    with pytest.raises(kind, match=text) as caught:
        run_training(training.job)
    assert shard.name in str(caught.value)
    (newest,) = training.job.store.list()
    assert 0 < newest < 960
    shard.write_bytes(original)
    assert made(training) == expected | {"checkpoints": training.job.store.list()}


def _train_share(rank: int, job: TrainingJob, folder_here: str, meeting: str) -> None:
    """Rank 0 fetches the shards, rank 1 sees their folder."""
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
    if rank == 1:
        job = dataclasses.replace(job, shards=dataclasses.replace(job.shards, folder=folder_here))
    try:
        run_training(job, World(rank, 2))
    except UnavailableError as error:
        Path(job.folder, f"error-{rank}").write_text(str(error))


def test_all_workers_end_where_the_shard_of_a_single_host_does_not_come(many_shards: Path, tmp_path: Path) -> None:
    settings = {"window_shards": 2, "num_images": 960, "checkpoint_every": 1000}
    training, shard = fetching(new_training(many_shards, tmp_path / "training", "dcgan", **settings), many_shards)
    flip_a_bit(shard)
    job = dataclasses.replace(training.job, open_tracker=None)
    Path(job.folder).mkdir(parents=True)
    arguments = (job, str(many_shards), str(tmp_path / "meeting"))
    torch.multiprocessing.start_processes(_train_share, arguments, nprocs=2, start_method="spawn")
    errors = [Path(job.folder, f"error-{rank}").read_text() for rank in (0, 1)]
    assert shard.name in errors[0]
    assert errors[1] == "another worker could not read a shard; its own line says why"
    assert len(job.store.list()) == 1


def test_a_window_that_has_no_room_ends_it_before_it_begins(
    many_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANPIPE_CACHE_BYTES", "1000")
    training, _ = fetching(new_training(many_shards, tmp_path / "training", "dcgan", window_shards=2), many_shards)
    with pytest.raises(GanpipeError, match=r"train\.window_shards: got 2: 4 shards of the train split are held"):
        run_training(training.job)
    assert not training.job.store.list()


def test_an_evaluation_reads_the_stream(many_shards: Path) -> None:
    settings, extractor = EvaluateSettings(num_real=50, resize=32), efficientnet_lite0(32)
    references = [
        compute_reference(open_dataset(ShardSet(str(many_shards), read=how), "train"), extractor, settings)  # type: ignore[arg-type]
        for how in ("cache", "stream")
    ]
    np.testing.assert_array_equal(references[0].features_ND, references[1].features_ND)
    np.testing.assert_array_equal(references[0].indices_N, references[1].indices_N)
