"""What Ray Tune costs a trial beyond its training, and what reports cost a training."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.gans import load
from ganpipe.tracking.runs import Tracker
from ganpipe.training.distributed import World
from ganpipe.training.observers import throttled
from ganpipe.training.search import search
from ganpipe.training.search_settings import TuneSettings
from ganpipe.training.settings import ClusterSettings, TrainSettings
from ganpipe.training.worker import TrainingJob, run_training

from .data import mnist
from .measure import Row, median
from .training import ray_for

_NUM_TRIALS, _NUM_IMAGES = 8, 20_000


@dataclass(frozen=True)
class _Score:
    """Stands for quick FID, which is no overhead: the time of day, so that trials can be told apart."""

    def __call__(self, gan: Any, progress: Any) -> float:
        return time.time()


def tuning(folder: Path, rounds: int) -> list[Row]:
    """Both."""
    os.environ["GANPIPE_CACHE"] = str(folder / "cache")
    shards = mnist(folder / "shards")
    with ray_for(folder):
        return [_overhead(folder, shards, rounds), _reports(folder, shards, rounds)]


def _job(shards: Path, folder: Path, **settings: Any) -> TrainingJob:
    values = {"gan": "gan", "num_images": _NUM_IMAGES, "checkpoint_every": _NUM_IMAGES, **settings}
    return TrainingJob(
        name="gan",
        gan="gan",
        config=load("gan").Config(),
        settings=TrainSettings.model_validate(values),
        shards=ShardSet(str(shards), read_manifest(shards)),
        folder=str(folder),
        num_threads=2,
        score=_Score(),
    )


def _overhead(folder: Path, shards: Path, rounds: int) -> Row:
    """Trials one after another on both cores, from the first one's end to the last one's, less what each trains."""
    settings = TuneSettings(num_trials=_NUM_TRIALS, num_images=_NUM_IMAGES, cpus_per_worker=2)
    each, alone = [], []
    for turn in range(rounds):
        job = _job(shards, folder / f"search-{turn}")
        ended = sorted(trial.objective for trial in search(job, settings, ClusterSettings()).trials)
        each.append((ended[-1] - ended[0]) / (_NUM_TRIALS - 1))
        start = time.time()
        state = run_training(_job(shards, folder / f"alone-{turn}"))
        alone.append(state.scores[max(state.scores)] - start)
    overhead = median([trial - training for trial, training in zip(each, alone, strict=True)])
    detail = f"{median(each):.2f} s a trial, {median(alone):.2f} s its training by itself"
    return Row("Ray Tune's overhead a trial, beyond its training", overhead, "s", "≤ 1.0", detail)


class _Timed:
    """Adds up the seconds that calls of the training's thread into a tracker, or of a function, take."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.seconds = inner, 0.0

    def __enter__(self) -> _Timed:
        self.inner.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self.inner.__exit__(*failure)

    def __call__(self, *arguments: Any) -> Any:
        return self._timed(self.inner, *arguments)

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._timed, getattr(self.inner, name))

    def _timed(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*arguments, **named)
        finally:
            self.seconds += time.perf_counter() - start


def _timed_worker(config: dict[str, Any]) -> None:
    """What training/worker.py runs under Ray Train, with a clock on its reports; leaves their share of the time."""
    import ray.train

    tracker, report = _Timed(config["tracker"]()), _Timed(ray.train.report)
    job = dataclasses.replace(config["job"], open_tracker=lambda: tracker)
    start = time.perf_counter()
    run_training(job, report=throttled(report, World()))
    share = (tracker.seconds + report.seconds) / (time.perf_counter() - start)
    Path(job.folder, "share").write_text(str(100 * share))


def _reports(folder: Path, shards: Path, rounds: int) -> Row:
    """At the default settings, of the GAN that trains fastest."""
    import ray.train
    from ray.train.torch import TorchTrainer

    shares = []
    for turn in range(rounds):
        own = folder / f"reports-{turn}"
        own.mkdir()
        tracker = Tracker.at(own, "benchmark")
        with tracker.run("train", str(turn), name="gan") as run:
            job = dataclasses.replace(_job(shards, own, num_images=120_000, checkpoint_every=40_000), score=None)
            TorchTrainer(
                _timed_worker,  # type: ignore[arg-type]
                train_loop_config={"job": job, "tracker": functools.partial(tracker.attach, run.run_id)},
                scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 2}),
                run_config=ray.train.RunConfig(name="ray", storage_path=str(own)),
            ).fit()
        shares.append(float((own / "share").read_text()))
    detail = "`gan`, 120,000 images: a row of metrics every 2,000, a checkpoint with its report every 40,000"
    return Row("reports to Ray, MLflow and the console, share of the time", median(shares), "%", "≤ 1", detail)
