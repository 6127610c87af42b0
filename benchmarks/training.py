"""Training beside two yardsticks, in turns: `ganpipe train`'s worker under Ray Train, textbook code, and a bare loop.

A training under Ray cannot be started for every turn: it starts once, and waits in its tracker for its own.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ganpipe import services
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.errors import GanpipeError
from ganpipe.evaluation.sample_grids import SampleGrid
from ganpipe.gans import load
from ganpipe.tracking.runs import Tracker
from ganpipe.training import cluster
from ganpipe.training.allocator import keep_freed_memory
from ganpipe.training.feed import data_spec_of
from ganpipe.training.settings import ClusterSettings, TrainSettings
from ganpipe.training.worker import TrainingJob, train

from .ceiling import Ceiling
from .data import mnist
from .measure import Row, alternate, median, ratio
from .textbook import Textbook

SECONDS = 3.0
"""Of a turn."""
CASES = {"gan": (28, "2.5", "1.8"), "dcgan": (32, "4.0", "2.5"), "wgan_gp": (28, "2.5", "1.8")}
"""GAN -> image size, and the goals over textbook code with the default precision and in fp32."""
_NUM_PNG = 10_000
BATCH, _NUM_THREADS = 64, 2


class Turns:
    """Stands before a training's tracker: notes the speed of each window, and waits while it is another's turn."""

    def __init__(self, folder: Path, open_inner: Callable[[], Any]) -> None:
        self.folder, self.open_inner = folder, open_inner
        self.inner: Any = None
        self.waited = True

    def __call__(self) -> Turns:
        self.inner = self.open_inner()
        return self

    def __enter__(self) -> Turns:
        self.inner.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self.inner.__exit__(*failure)

    def log_bytes(self, content: bytes, name: str) -> None:
        self.inner.log_bytes(content, name)

    def flush(self) -> object:
        return self.inner.flush()

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        self.inner.log_metrics(values, step)
        if not self.waited:  # the window in which it waited does not count
            with (self.folder / "speeds").open("a") as file:
                file.write(f"{values['images_per_second']}\n")
        self.waited = False
        while (turn := (self.folder / "turn").read_text()) == "wait":
            (self.folder / "waiting").touch()
            self.waited = True
            time.sleep(0.02)
        if turn == "end":
            raise GanpipeError("the benchmark is over")


class InOwnProcess:
    """A yardstick's training, a window at a time; no other one's threads or memory are in its way.

    Args:
        make: called there; what it returns has `window(seconds)`, images per second.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_windows, args=(theirs, make))
        self._process.start()
        theirs.close()  # so that its death is seen

    def __enter__(self) -> InOwnProcess:
        return self

    def __exit__(self, *failure: Any) -> None:
        self._pipe.send(None)
        self._process.join()

    def window(self, seconds: float) -> float:
        """Train for about so long. Returns images per second."""
        self._pipe.send(seconds)
        return float(self._pipe.recv())


def _windows(pipe: multiprocessing.connection.Connection, make: Callable[[], Any]) -> None:
    training = make()
    while (seconds := pipe.recv()) is not None:
        pipe.send(training.window(seconds))


def bare_loop(
    gan: str, shards: Path, precision: str, batch_size: int = BATCH, num_threads: int = _NUM_THREADS
) -> Ceiling:
    keep_freed_memory()
    torch.set_num_threads(num_threads)
    dataset = open_dataset(shards, "train")
    images = torch.from_numpy(dataset.rows(np.arange(len(dataset)))["image"]).float().div_(127.5).sub_(1)
    return Ceiling(
        gan, load(gan).Config(), data_spec_of(dataset.manifest), images, batch_size, bf16=precision == "auto"
    )


def textbook_code(gan: str, shards: Path, pngs: Path) -> Textbook:
    torch.set_num_threads(_NUM_THREADS)
    log = Path(os.devnull).open("w")  # noqa: SIM115 - it ends with the process
    return Textbook(gan, load(gan).Config(), data_spec_of(read_manifest(shards)), pngs, BATCH, log)


class UnderRay:
    """A training by a Ray Train worker group, a window at a time."""

    def __init__(self, folder: Path, job: TrainingJob, wanted: ClusterSettings) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._turn("go")
        self._thread = threading.Thread(target=self._run, args=(job, wanted), daemon=True)
        self._thread.start()
        self._wait(lambda: (folder / "speeds").exists())
        self.pause()

    def _run(self, job: TrainingJob, wanted: ClusterSettings) -> None:
        with contextlib.suppress(GanpipeError):  # that is how it ends; an early end is seen by who waits
            train(job, wanted)

    def _turn(self, word: str) -> None:
        partial = self.folder / "turn.partial"
        partial.write_text(word)
        partial.replace(self.folder / "turn")

    def _wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if not self._thread.is_alive():
                raise RuntimeError(f"the training in {self.folder} ended early")
            time.sleep(0.02)

    def pause(self) -> None:
        """Wait until it waits."""
        (self.folder / "waiting").unlink(missing_ok=True)
        self._turn("wait")
        self._wait((self.folder / "waiting").exists)

    def window(self, seconds: float) -> float:
        """Train for about so long. Returns real images per second: the harmonic mean of equal numbers of images."""
        speeds = self.folder / "speeds"
        speeds.write_text("")
        self._turn("go")
        start = time.perf_counter()
        self._wait(lambda: time.perf_counter() - start > seconds and speeds.stat().st_size > 0)
        self.pause()
        return statistics.harmonic_mean([float(line) for line in speeds.read_text().split()])

    def end(self) -> None:
        self._turn("end")
        self._thread.join()


@contextlib.contextmanager
def under_ray(
    folder: Path, gan: str, shards: Path, num_workers: int = 1, num_threads: int = 2, **settings: Any
) -> Iterator[UnderRay]:
    """A training with the default settings, tracked in MLflow, but never scored: a score is no training."""
    # Room for two groups that take turns.
    wanted = ClusterSettings(num_workers=num_workers, cpus_per_worker=0.5, max_failures=0)
    config = load(gan).Config()
    tracker = Tracker.at(folder, "benchmark")
    train_settings = TrainSettings(gan=gan, num_images=10**9, checkpoint_every=10**9, **settings)
    with tracker.run("train", folder.name, name=gan) as run:
        job = TrainingJob(
            name=gan,
            gan=gan,
            config=config,
            settings=train_settings,
            shards=ShardSet(str(shards), read_manifest(shards)),
            folder=str(folder / "work"),
            num_threads=num_threads,
            draw=SampleGrid(64, 0),
            open_tracker=Turns(folder / "turns", _Attach(tracker, run.run_id)),
        )
        training = UnderRay(folder / "turns", job, wanted)
        try:
            yield training
        finally:
            training.end()


@dataclass(frozen=True)
class _Attach:
    tracker: Tracker
    run_id: str

    def __call__(self) -> Any:
        return self.tracker.attach(self.run_id)


def one_file_an_image(shards: Path, folder: Path) -> Path:
    """The first images as PNG files, one a file, as most datasets come."""
    folder.mkdir()
    for number, pixels in enumerate(open_dataset(shards, "train").rows(np.arange(_NUM_PNG))["image"]):
        Image.fromarray(pixels[0]).save(folder / f"{number:05d}.png")
    return folder


def training(folder: Path, rounds: int) -> list[Row]:
    """Over textbook code, over the bare loop, and two workers over one."""
    rows = []
    os.environ["GANPIPE_CACHE"] = str(folder / "cache")
    with ray_for(folder):
        for gan, (size, goal, strict_goal) in CASES.items():
            shards = folder / f"shards-{size}"
            if not shards.exists():
                mnist(shards, DataSettings(source="mnist", image_size=size))
                one_file_an_image(shards, folder / f"png-{size}")
            for precision, wanted in (("auto", goal), ("fp32", strict_goal)):
                pngs = folder / f"png-{size}"
                rows += _case(folder / f"{gan}-{precision}", gan, shards, pngs, precision, wanted, rounds)
        rows.append(_workers(folder, folder / "shards-32", rounds))
    return rows


@contextlib.contextmanager
def ray_for(folder: Path) -> Iterator[None]:
    """A Ray head of the benchmark's own, which this process has joined."""
    root = folder / "services"
    root.mkdir()
    try:
        cluster.connect(services.ensure("ray", root).address)
        yield
    finally:
        import ray

        ray.shutdown()
        services.stop(root)


def _case(folder: Path, gan: str, shards: Path, pngs: Path, precision: str, goal: str, rounds: int) -> list[Row]:
    with (
        InOwnProcess(functools.partial(textbook_code, gan, shards, pngs)) as textbook,
        InOwnProcess(functools.partial(bare_loop, gan, shards, precision)) as ceiling,
        under_ray(folder, gan, shards, precision=precision) as ours,
    ):
        found = alternate(
            {
                "textbook": lambda: textbook.window(SECONDS),
                "ceiling": lambda: ceiling.window(SECONDS),
                "ganpipe": lambda: ours.window(SECONDS),
            },
            rounds,
        )
    speeds = ", ".join(f"{name} {median(values):,.0f} images/s" for name, values in found.items())
    what = f"training `{gan}`" + (" in strict fp32" if precision == "fp32" else "")
    over_textbook, over_ceiling = ratio(found, "ganpipe", "textbook"), ratio(found, "ganpipe", "ceiling")
    rows = [Row(f"{what}, `ganpipe train` over textbook code", over_textbook, "x", f"≥ {goal}", speeds)]
    if precision == "auto":
        rows.append(Row(f"{what}, under Ray Train over the bare loop", over_ceiling, "x", "≥ 0.95"))
    return rows


def _workers(folder: Path, shards: Path, rounds: int) -> Row:
    with (
        under_ray(folder / "one", "dcgan", shards) as first,
        under_ray(folder / "two", "dcgan", shards, num_workers=2, num_threads=1) as second,
    ):
        found = alternate({"one": lambda: first.window(SECONDS), "two": lambda: second.window(SECONDS)}, rounds)
    speeds = f"one worker {median(found['one']):,.0f} images/s, two {median(found['two']):,.0f}"
    return Row("`dcgan`, two workers of one thread over one of two", ratio(found, "two", "one"), "x", "≥ 1.0", speeds)
