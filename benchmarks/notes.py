"""`make bench-notes`: how long until the quality that the lecture notes' training reaches after its 200 epochs.

The notes' GAN (784 pixels, batch 64, Adam 2e-4 with betas 0.5 and 0.999) trains for 187,600 steps, in 13,996 s by their
log. Its FID there is the target. Then the GAN of this project that learns fastest, AC-GAN, trains for so few images
that it just gets there; its rates fall by the share of its training, so that it is measured at its end. It makes images
of 32 pixels, which are MNIST's with a black border: the border is cut off, and both compare with the same ones.

    python -m benchmarks.notes              # both; about half an hour on two cores
    python -m benchmarks.notes --target 95  # only the second, to this FID

Seconds are those of training; scoring does not count.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ganpipe.cpus import usable_cpus
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.evaluation.extractors import efficientnet_lite0
from ganpipe.evaluation.frechet import Gaussian, gaussian_distance
from ganpipe.evaluation.sample_grids import classes_in_turn
from ganpipe.evaluation.sampling import sample_images, sample_seeds
from ganpipe.gans import load
from ganpipe.gans.base import Gan, Progress
from ganpipe.training.settings import TrainSettings
from ganpipe.training.worker import TrainingJob, run_training

from .__main__ import keep, write
from .data import mnist
from .measure import Row

NOTES_SECONDS = 13_996
NOTES_IMAGES = 187_600 * 64
_NUM_SAMPLES, _SIDE = 10_000, 28
_BEST: dict[str, Any] = {"gan": "acgan", "num_images": 17_000, "checkpoint_every": 17_000, "batch_size": 16}
_NOTES: dict[str, Any] = {"gan": "gan", "num_images": NOTES_IMAGES, "checkpoint_every": 1_200_640}


class Fid:
    """FID of 28-pixel images, 10,000 against 10,000; notes the seconds of training at which it was taken."""

    def __init__(self, shards: Path, show: Callable[[str], None] = print) -> None:
        dataset = open_dataset(shards, "train")
        self._extractor = efficientnet_lite0(64)
        self._real = Gaussian.fit(self._extractor.features(dataset.rows(np.arange(_NUM_SAMPLES))["image"]))
        self._show = show
        self.scored: list[tuple[int, float, float]] = []
        self._began, self._scoring = time.perf_counter(), 0.0

    def start(self) -> None:
        """Training begins now."""
        self._began, self._scoring = time.perf_counter(), 0.0

    def __call__(self, gan: Gan, progress: Progress) -> float:
        start = time.perf_counter()
        images = sample_images(gan, progress, sample_seeds(0, _NUM_SAMPLES), classes_in_turn(gan, _NUM_SAMPLES))
        border = (images.shape[2] - _SIDE) // 2
        cut = images[:, :, border : border + _SIDE, border : border + _SIDE]
        fid = gaussian_distance(self._real, Gaussian.fit(self._extractor.features(cut)))
        self.scored.append((progress.images_seen, start - self._began - self._scoring, fid))
        self._scoring += time.perf_counter() - start
        self._show(f"  {progress.images_seen:,} images, {self.scored[-1][1]:.0f} s of training: FID {fid:.1f}")
        return fid


def train(folder: Path, real: Path, shards: Path, settings: dict[str, Any]) -> Fid:
    """Train in this process with the default settings but these."""
    fid = Fid(real)
    gan = settings["gan"]
    train_settings = TrainSettings.model_validate(settings)
    shard_set = ShardSet(str(shards), read_manifest(shards))
    config = load(gan).Config()
    job = TrainingJob(gan, gan, config, train_settings, shard_set, str(folder / gan), usable_cpus(), fid)
    open_dataset(shards, "train")  # the decoded cache is no training
    fid.start()
    run_training(job)
    return fid


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.notes", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--target", type=float, help="the FID to reach; default: that of the notes' training, run first"
    )
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="ganpipe-bench-") as name:
        folder = Path(name)
        real = mnist(folder / "shards-28", DataSettings(source="mnist", image_size=28))
        large = mnist(folder / "shards-32", DataSettings(source="mnist", image_size=32))
        target = options.target
        if target is None:
            print(f"the notes' GAN, {NOTES_IMAGES:,} images:")
            _, seconds, target = train(folder, real, real, _NOTES).scored[-1]
            rows.append(Row("the notes' own 200 epochs in this pipeline", seconds, "s", "", f"FID {target:.1f}"))
        print(f"{_BEST['gan']}, {_BEST['num_images']:,} images:")
        images, seconds, fid = train(folder, real, large, _BEST).scored[-1]
    if fid <= target:
        what, notes = "time to the notes' quality, over the notes' own", f"the notes: {NOTES_SECONDS:,} s"
        detail = f"{seconds:.0f} s, {images:,} images, FID {fid:.1f} (target {target:.1f}); {notes}"
        rows.append(Row(what, seconds / NOTES_SECONDS, "x", "≤ 0.01", detail))
    else:
        print(f"not reached in {images:,} images: FID {fid:.1f}")
    given = "" if options.target is None else f" --target {options.target:g}"
    keep("notes", f"python -m benchmarks.notes{given}", rows)
    write()


if __name__ == "__main__":
    main()
