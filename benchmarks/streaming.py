"""Samples streamed from the shards, over the decoded cache and over the webdataset library with Pillow."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from ganpipe.data.loading.dataset import Dataset
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.loading.order import SampleOrder
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import Manifest, read_manifest, write_manifest
from ganpipe.data.shards.shard_set import Read, ShardSet
from ganpipe.gans import load
from ganpipe.training.distributed import World
from ganpipe.training.feed import Feed, data_spec_of
from ganpipe.training.loop import Loop
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import TrainingState
from tests.object_store import BUCKET, ObjectStore, serving

from .data import mnist, webdataset_epoch
from .measure import Row, alternate, median, ratio

_BATCH, _WINDOW, _STEPS = 64, 4, 100
SMALL, LARGE = 10_000, 1_000_000
_SMALL_SHARDS = DataSettings(source="mnist", image_size=32, validation_fraction=0.0, samples_per_shard=1000)


def streaming(folder: Path, rounds: int) -> list[Row]:
    """An epoch, a training's step, and what a stream holds at two sizes."""
    shards = mnist(folder / "shards")
    manifest = read_manifest(shards)
    with serving(folder / "store.log") as store:
        os.environ.update(store.environment)
        urls = _uploaded(shards, manifest, store)
        sets: dict[str, ShardSet] = {
            "local": ShardSet(str(shards), manifest, read="stream"),
            "S3": ShardSet("not-here", manifest, urls, read="stream"),
        }
        epochs: dict[str, Callable[[], float]] = {
            name: lambda name=name, found=found: _epoch(found, folder / name)
            for name, found in sets.items()  # type: ignore[misc]
        }
        paths = sorted(str(path) for path in shards.glob("train-*.tar"))
        signed = [_signed(store, Path(path).name) for path in paths]
        epochs["webdataset"] = lambda: _timed(lambda: webdataset_epoch(paths))
        epochs["webdataset from S3"] = lambda: _timed(lambda: webdataset_epoch(signed))
        read = alternate(epochs, rounds)
    num_images = manifest.num_samples("train")
    speeds = ", ".join(f"{name} {num_images / median(found):,.0f} images/s" for name, found in read.items())
    steps: dict[Read, Callable[[], float]] = {how: _steps(shards, folder / "cache", how) for how in ("cache", "stream")}
    trained = alternate(steps, 3 * rounds)  # two speeds that are nearly equal, on machines that are not quiet
    detail = ", ".join(f"{name} {_BATCH * _STEPS / median(found):,.0f} images/s" for name, found in trained.items())
    return [
        Row("an epoch streamed from shards on this disk, over `webdataset` decoding with Pillow",
            ratio(read, "webdataset", "local"), "x", "≥ 3", speeds),
        Row("an epoch streamed from an S3 API on loopback, nothing of it here before, over `webdataset` from there",
            ratio(read, "webdataset from S3", "S3"), "x", "≥ 3"),
        Row("training `dcgan` at 32 px from a stream, over the decoded cache",
            ratio(trained, "cache", "stream"), "x", "≥ 0.95", detail),
        *_held(folder / "held"),
    ]  # fmt: skip


def _uploaded(shards: Path, manifest: Manifest, store: ObjectStore) -> dict[str, str]:
    for shard in manifest.shards:
        store.client.upload_file(str(shards / shard.name), BUCKET, shard.name)
    return {shard.name: store.url(shard.name) for shard in manifest.shards}


def _signed(store: ObjectStore, name: str) -> str:
    """A URL from which webdataset, which leaves that to curl, reads a shard without credentials."""
    values = {"Bucket": BUCKET, "Key": name}
    return str(store.client.generate_presigned_url("get_object", Params=values, ExpiresIn=3600))


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _epoch(found: ShardSet, cache: Path, most: Callable[[], None] | None = None) -> float:
    """Seconds for an epoch in batches, in windows of shards, from the opening on."""
    shutil.rmtree(cache, ignore_errors=True)

    def read() -> None:
        dataset = opened.enter_context(contextlib.closing(open_dataset(found, "train", cache)))
        order = SampleOrder(dataset.shard_sizes_S, 0, _WINDOW)
        until = 0
        for start in range(0, len(dataset) - _BATCH, _BATCH):
            while until < start + _BATCH:
                now, until = order.window_at(until)
                dataset.expect("", now, order.window_at(until)[0])
                if most is not None:
                    most()
            dataset.rows(order.indices(start, start + _BATCH))

    with contextlib.ExitStack() as opened:
        return _timed(read)


def _steps(shards: Path, cache: Path, how: Read) -> Callable[[], float]:
    """Seconds for some steps of a training."""
    dataset: Dataset = open_dataset(ShardSet(str(shards), read=how), "train", cache)
    gan = load("dcgan")
    config, settings = gan.Config(), TrainSettings(gan="dcgan", num_images=10**9)
    state = TrainingState("dcgan", config, data_spec_of(dataset.manifest), settings, World())
    state.configure_torch()
    origins = state.gan.origins(config, state.gan.data)
    feed = Feed(dataset, origins, 0, torch.device("cpu"), state.dtype, state.memory_format)
    loop = Loop(state, feed, settings, World())

    def run() -> float:
        return _timed(lambda: [loop.step() for _ in range(_STEPS)])

    return run


def _bytes_of(path: Path) -> int:
    """On the disk; 0 for a file that was removed meanwhile."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _held(folder: Path) -> list[Row]:
    """Peaks of this process's memory and of its part of the disk in an epoch of many shards: the same few again and
    again, each time followed by other bytes, which a tar allows, so that no two shards have the same digest."""
    shards = mnist(folder / "shards", _SMALL_SHARDS)
    manifest = read_manifest(shards)
    train = manifest.shards_of("train")
    found: dict[int, tuple[float, float]] = {}
    for num_images in (SMALL, LARGE):
        own = folder / str(num_images)
        own.mkdir(parents=True)
        many = []
        for number in range(num_images // train[0].num_samples):
            original, name = train[number % len(train)], f"train-{number:06d}.tar"
            content = (shards / original.name).read_bytes() + b"%010d" % number
            (own / name).write_bytes(content)
            about = {"name": name, "num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            many.append(original.model_copy(update=about))
        write_manifest(own, manifest.model_copy(update={"shards": tuple(many)}))
        large = read_manifest(own)
        urls = {shard.name: f"file://{own / shard.name}" for shard in large.shards}
        most, process, cache = [0.0, 0.0], psutil.Process(), folder / "cache"
        before = process.memory_full_info().uss

        def look(most: list[float] = most, process: psutil.Process = process, before: int = before) -> None:
            most[0] = max(most[0], (process.memory_full_info().uss - before) / 2**20)
            disk = sum(_bytes_of(Path(place, name)) for place, _, names in os.walk(cache) for name in names)  # noqa: B023
            most[1] = max(most[1], disk / 2**20)

        os.environ["GANPIPE_CACHE_BYTES"] = str(2 * _WINDOW * max(shard.num_bytes for shard in large.shards))
        _epoch(ShardSet("not-here", large, urls, read="stream"), cache, look)
        found[num_images] = most[0], most[1]
    del os.environ["GANPIPE_CACHE_BYTES"]
    (small_memory, small_disk), (memory, disk) = found[SMALL], found[LARGE]
    sizes = f"MiB with {SMALL:,} and {LARGE:,} images in windows of {_WINDOW} shards"
    return [
        Row(
            "memory that a stream adds, at most",
            memory,
            "MiB",
            "",
            f"{small_memory:.0f} and {memory:.0f} {sizes}",
        ),
        Row("disk that a stream takes, at most", disk, "MiB", "", f"{small_disk:.0f} and {disk:.0f} {sizes}"),
    ]
