"""Ingest and the decoded cache, beside what the webdataset library and Pillow do by themselves."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ganpipe.data import sources
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.loading.order import SampleOrder
from ganpipe.data.settings import DataSettings

from .measure import Row, alternate, median, ratio

_SETTINGS = DataSettings(source="mnist", image_size=32, validation_fraction=0.0, samples_per_shard=5000)
_BATCH = 64


def mnist(folder: Path, settings: DataSettings = _SETTINGS) -> Path:
    """MNIST's 60,000 training images as shards in `folder`, made by `ganpipe`'s own ingest."""
    source = sources.load("mnist")
    write_shards(settings, source(source.Settings()), folder)
    return folder


def data(folder: Path, rounds: int) -> list[Row]:
    """Ingest, the first epoch, and later ones."""
    images, labels = _pixels(folder / "first")
    ours, theirs, cache = folder / "ours", folder / "theirs", folder / "cache"

    def timed(work: Callable[[], Any], *stale: Path) -> Callable[[], float]:
        def run() -> float:
            for path in stale:
                shutil.rmtree(path, ignore_errors=True)
            start = time.perf_counter()
            work()
            return time.perf_counter() - start

        return run

    ingest = alternate(
        {
            "ganpipe": timed(lambda: mnist(ours), ours),
            "ShardWriter": timed(lambda: _shard_writer(images, labels, theirs), theirs),
        },
        rounds,
    )
    dataset = open_dataset(ours, "train", cache)
    order = SampleOrder(len(dataset), seed=0)

    def epoch() -> None:
        for start in range(0, len(dataset) - _BATCH, _BATCH):
            dataset.rows(order.indices(start, start + _BATCH))

    read = alternate(
        {
            "first": timed(lambda: open_dataset(ours, "train", cache), cache),
            "later": timed(epoch),
            "webdataset": timed(lambda: webdataset_epoch(sorted(map(str, ours.glob("*.tar"))))),
        },
        rounds,
    )
    num_images = len(images)

    def speeds(found: dict[str, list[float]]) -> str:
        return ", ".join(f"{name} {num_images / median(seconds):,.0f} images/s" for name, seconds in found.items())

    return [
        Row("ingest of MNIST, over one process of `ShardWriter` with Pillow", ratio(ingest, "ShardWriter", "ganpipe"),
            "x", "≥ 3", speeds(ingest)),
        Row("first epoch from shards (building the decoded cache), over `webdataset` decoding with Pillow",
            ratio(read, "webdataset", "first"), "x", "≥ 3", speeds(read)),
        Row("later epochs, over `webdataset` decoding with Pillow", ratio(read, "webdataset", "later"), "x", "≥ 100"),
    ]  # fmt: skip


def _pixels(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images as uint8 (N, H, W), and labels."""
    rows = open_dataset(mnist(folder / "shards"), "train", folder / "cache").rows(np.arange(60_000))
    return rows["image"][:, 0], rows["label"]


def _shard_writer(images: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    """What webdataset's own documentation shows."""
    import webdataset
    from PIL import Image

    folder.mkdir()
    with webdataset.ShardWriter(f"{folder}/train-%06d.tar", maxcount=5000, verbose=0) as writer:
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            writer.write({"__key__": f"{number:06d}", "png": Image.fromarray(pixels), "cls": int(label)})


def webdataset_epoch(shards: list[str]) -> None:
    """One epoch of shards at these paths or URLs in batches, decoded with Pillow, as webdataset's own documentation
    shows."""
    import webdataset

    def image(content: bytes) -> np.ndarray:
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(content)))

    dataset = webdataset.WebDataset(shards, shardshuffle=False).to_tuple("png", "cls").map_tuple(image, int)
    for _ in dataset.batched(_BATCH):
        continue
