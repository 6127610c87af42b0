"""`make bench-notes`: how long until the quality that the lecture notes' training reaches after its 200 epochs.

The notes' GAN (784 pixels, batch 64, Adam 2e-4 with betas 0.5 and 0.999) trains for 187,600 steps, in 13,996 s by their
log. Its FID there is the target. Then this pipeline's best recipe, DCGAN with what `ganpipe tune` finds for it under
params.yaml, trains until its FID is as low. It makes images of 32 pixels, which are MNIST's with a black border: the
border is cut off, and both compare with the same ones.

    python -m benchmarks.notes              # both; about half an hour on two cores
    python -m benchmarks.notes --target 95  # only the second, to this FID

Seconds are those of training; scoring does not count.
"""

from __future__ import annotations

import argparse
import json
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
from ganpipe.evaluation.sampling import sample_images, sample_seeds
from ganpipe.gans import load
from ganpipe.gans.base import Gan, GanConfig, Progress
from ganpipe.training.settings import TrainSettings
from ganpipe.training.worker import TrainingJob, run_training

from .__main__ import keep, write
from .checkout import make_checkout
from .data import mnist
from .measure import Row

NOTES_SECONDS = 13_996
NOTES_IMAGES = 187_600 * 64
_NUM_SAMPLES, _SIDE = 10_000, 28
_BEST: dict[str, Any] = {"gan": "dcgan", "num_images": 600_000, "checkpoint_every": 5_000}
_NOTES: dict[str, Any] = {"gan": "gan", "num_images": NOTES_IMAGES, "checkpoint_every": 1_200_640}


class Reached(Exception):
    """The target is."""


class Fid:
    """FID of 28-pixel images, 10,000 against 10,000; notes the seconds of training at which it was taken."""

    def __init__(self, shards: Path, target: float | None, show: Callable[[str], None] = print) -> None:
        dataset = open_dataset(shards, "train")
        self._extractor = efficientnet_lite0(64)
        self._real = Gaussian.fit(self._extractor.features(dataset.rows(np.arange(_NUM_SAMPLES))["image"]))
        self._target, self._show = target, show
        self.scored: list[tuple[int, float, float]] = []
        self._began, self._scoring = time.perf_counter(), 0.0

    def start(self) -> None:
        """Training begins now."""
        self._began, self._scoring = time.perf_counter(), 0.0

    def __call__(self, gan: Gan, progress: Progress) -> float:
        """FID.

        Raises:
            Reached: it is at most the target.
        """
        start = time.perf_counter()
        images = sample_images(gan, progress, sample_seeds(0, _NUM_SAMPLES))
        border = (images.shape[2] - _SIDE) // 2
        cut = images[:, :, border : border + _SIDE, border : border + _SIDE]
        fid = gaussian_distance(self._real, Gaussian.fit(self._extractor.features(cut)))
        self.scored.append((progress.images_seen, start - self._began - self._scoring, fid))
        self._scoring += time.perf_counter() - start
        self._show(f"  {progress.images_seen:,} images, {self.scored[-1][1]:.0f} s of training: FID {fid:.1f}")
        if self._target is not None and fid <= self._target:
            raise Reached
        return fid


def searched(root: Path) -> tuple[GanConfig, float]:
    """What `ganpipe tune` finds for the best recipe's GAN with params.yaml as it is, and how many seconds it takes."""
    checkout = make_checkout(root, train__gan=_BEST["gan"])
    checkout.run("ganpipe", "ingest")
    start = time.perf_counter()
    try:
        checkout.run("ganpipe", "tune")
        seconds = time.perf_counter() - start
    finally:
        checkout.run("ganpipe", "down")
    adam = json.loads((root / "artifacts" / "tune" / "best.json").read_text())
    print(f"  in {seconds:.0f} s: {adam}")
    return load(_BEST["gan"]).Config().with_optimizers(adam), seconds


def train_to(
    folder: Path, real: Path, shards: Path, settings: dict[str, Any], config: GanConfig, target: float | None
) -> Fid:
    """Train in this process with the default settings but these, to the target or the end."""
    fid = Fid(real, target)
    gan = settings["gan"]
    train_settings = TrainSettings.model_validate(settings)
    shard_set = ShardSet(str(shards), read_manifest(shards))
    job = TrainingJob(gan, gan, config, train_settings, shard_set, str(folder / gan), usable_cpus(), fid)
    open_dataset(shards, "train")  # the decoded cache is no training
    fid.start()
    try:
        run_training(job)
    except Reached:
        print(f"  FID {fid.scored[-1][2]:.1f} is reached")
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
            _, seconds, target = train_to(folder, real, real, _NOTES, load("gan").Config(), None).scored[-1]
            rows.append(Row("the notes' own 200 epochs in this pipeline", seconds, "s", "", f"FID {target:.1f}"))
        print(f"the search for {_BEST['gan']}:")
        config, search_seconds = searched(folder / "search")
        print(f"{_BEST['gan']} to FID {target:.1f}:")
        images, seconds, fid = train_to(folder, real, large, _BEST, config, target).scored[-1]
    if fid <= target:
        what, notes = "time to the notes' quality, over the notes' own", f"the notes: {NOTES_SECONDS:,} s"
        detail = f"{seconds:.0f} s, {images:,} images, FID {fid:.1f} (target {target:.1f}); {notes}"
        rows.append(Row(what, seconds / NOTES_SECONDS, "x", "≤ 0.01", detail))
        both = (search_seconds + seconds) / NOTES_SECONDS
        rows.append(Row(f"{what}, with its search", both, "x", "", f"the search: {search_seconds:.0f} s"))
    else:
        print(f"not reached in {images:,} images: FID {fid:.1f}")
    given = "" if options.target is None else f" --target {options.target:g}"
    keep("notes", f"python -m benchmarks.notes{given}", rows)
    write()


if __name__ == "__main__":
    main()
