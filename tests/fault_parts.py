"""Trainings that are killed, and what they make: to be compared with what an undisturbed one makes."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from training_parts import SMALL, blobs

from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.evaluation.sample_grids import SampleGrid
from ganpipe.evaluation.sampling import sample_images
from ganpipe.gans import load
from ganpipe.gans.base import Gan, Progress
from ganpipe.stages.train import _csv
from ganpipe.tracking.runs import Tracker
from ganpipe.training.distributed import World
from ganpipe.training.feed import data_spec_of
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import CheckpointStore, TrainingState
from ganpipe.training.worker import TrainingJob, run_training

processes = multiprocessing.get_context("forkserver")
"""Each training is a process of its own, forked from one that has imported what it needs: it starts in no time."""
processes.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store", "ganpipe.stages.train", "scipy.linalg"])


class PixelDistance:
    """Stands in for quick FID, which needs minutes here: the pixel distance between samples and the data."""

    def __call__(self, gan: Gan, progress: Progress) -> float:
        fake = sample_images(gan, progress, range(32)).astype(np.float64)
        real = (blobs(64)["image"].numpy() + 1) * 127.5
        return float(np.square(real.mean(0) - fake.mean(0)).mean())


@dataclass(frozen=True)
class Training:
    """A training with its MLflow run, in folders of its own."""

    job: TrainingJob
    tracker: Tracker
    run_id: str

    def made(self) -> dict[str, Any]:
        """Bytes of the generator, of the table of losses and of the sample grids; scores; metrics by name and step."""
        state = TrainingState(self.job.gan, self.job.config, data_spec_of(self.job.shards.manifest), self.job.settings)
        state.load_state_dict(self.job.store.load(self.job.store.newest()))
        assert state.progress.images_seen >= self.job.settings.num_images, "it did not come to its end"
        samples = {path.name: path.read_bytes() for path in sorted(Path(self.job.folder, "samples").glob("*.png"))}
        return {
            "generator.safetensors": safetensors.torch.save(state.generator_state()),
            "curves.csv": _csv(state.curves.rows),
            "scores": state.scores,
            "samples": samples,
            "checkpoints": self.job.store.list(),
            "metrics": self.metrics(),
        }

    def metrics(self) -> dict[str, list[tuple[int, float | None]]]:
        """What MLflow holds of each metric, as (step, value) in order; of the speed, which is never the same, the
        steps alone.

        Raises:
            AssertionError: a step is there twice.
        """
        client = self.tracker.client()
        found = {}
        for name in sorted(client.get_run(self.run_id).data.metrics):
            history = sorted(client.get_metric_history(self.run_id, name), key=lambda metric: metric.step)
            steps = [metric.step for metric in history]
            assert len(steps) == len(set(steps)), f"{name} was logged twice at some steps: {steps}"
            found[name] = [(m.step, None if name == "images_per_second" else m.value) for m in history]
        return found


@functools.cache
def _database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        Tracker.at(Path(folder), "faults").client()
        return (Path(folder) / "mlflow.db").read_bytes()


def new_training(shards: Path, root: Path, gan: str, **settings: Any) -> Training:
    """A training of `gan` on small images, nothing of it done yet."""
    values = {
        "gan": gan,
        "num_images": 3200,
        "batch_size": 16,
        "precision": "fp32",
        "log_every": 160,
        "checkpoint_every": 480,
        "samples_at_updates": [7, 50],
        **settings,
    }
    tracker = Tracker.at(root, "faults")
    root.mkdir(exist_ok=True)
    (root / "mlflow.db").write_bytes(_database())
    client = tracker.client()
    run_id = client.create_run(tracker.experiment_id(client)).info.run_id
    job = TrainingJob(
        gan,
        gan,
        load(gan).Config.model_validate(SMALL.get(gan, {})),
        TrainSettings.model_validate(values),
        ShardSet(str(shards), read_manifest(shards)),
        str(root / "work"),
        score=PixelDistance(),
        score_name="distance",
        draw=SampleGrid(16, 0),
        open_tracker=functools.partial(tracker.attach, run_id),
    )
    return Training(job, tracker, run_id)


def start(training: Training, at: str | None = None, world_size: int = 1) -> list[Child]:
    """Train in processes of their own, without Ray.

    Args:
        at: where of `MOMENTS` the process kills itself, if it is to.
        world_size: so many processes train together.
    """
    meeting = Path(training.job.folder).parent / f"meeting-{os.urandom(4).hex()}"
    children = []
    for rank in range(world_size):
        going = processes.Event()
        process = processes.Process(target=_train, args=(training, at, rank, world_size, str(meeting), going))
        process.start()
        children.append(Child(process, going))
    return children


def warm_up() -> None:
    """Start the process that all others are forked from, so that its start is in nobody's time."""
    process = processes.Process(target=int)
    process.start()
    process.join()


@dataclass(frozen=True)
class Child:
    """A process that trains."""

    process: ForkServerProcess
    going: Event
    """Set once the training goes on from a checkpoint, or has reached its first one."""

    def end(self, timeout_seconds: float = 300) -> int | None:
        self.process.join(timeout_seconds)
        return self.process.exitcode


def _train(training: Training, at: str | None, rank: int, world_size: int, meeting: str, going: Event) -> None:
    import torch.distributed

    if at is not None:
        MOMENTS[at]()
    if world_size > 1:
        torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=world_size)
    run_training(training.job, World(rank, world_size), report=lambda metrics: going.set())
    if world_size > 1:
        torch.distributed.destroy_process_group()


# --- moments at which a process dies: what it does then is real, and so is its death


def die(*ignored: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: type, method: str, number: int, when: Callable[..., bool] = lambda *a, **k: True) -> None:
    """Die when `owner.method` is called for the `number`-th time with what `when` wants."""
    _around(owner, method, number, when, lambda real, *a, **k: die())


def _around(owner: type, method: str, number: int, when: Callable[..., bool], instead: Callable[..., object]) -> None:
    real, calls = getattr(owner, method), [0]

    def counted(*arguments: Any, **options: Any) -> Any:
        if when(*arguments, **options):
            calls[0] += 1
            if calls[0] == number:
                instead(real, *arguments, **options)
        return real(*arguments, **options)

    setattr(owner, method, counted)


def _half_a_checkpoint() -> None:
    def half(real: Any, store: CheckpointStore, path: str, content: bytes) -> None:
        Path(path).write_bytes(content[: len(content) // 2])
        die()

    _around(CheckpointStore, "_write", 3, lambda *a: True, half)


def _unmoved_checkpoint() -> None:
    def unmoved(real: Any, *arguments: Any) -> None:
        real(*arguments)
        die()

    _around(CheckpointStore, "_write", 3, lambda *a: True, unmoved)


def _half_a_grid() -> None:
    from fsspec.implementations.local import LocalFileSystem

    def half(real: Any, filesystem: Any, path: str, content: bytes, **options: Any) -> None:
        Path(path).write_bytes(content[: len(content) // 2])
        die()

    _around(LocalFileSystem, "pipe_file", 2, lambda fs, path, *a, **k: path.endswith(".png"), half)


def _after_log_batch() -> None:
    from mlflow import MlflowClient

    def taken(real: Any, *arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        die()

    _around(MlflowClient, "log_batch", 2, lambda *a, **k: bool(k.get("metrics")), taken)


def _before_log_batch() -> None:
    from mlflow import MlflowClient

    _before(MlflowClient, "log_batch", 2, lambda *a, **k: bool(k.get("metrics")))


def _half_a_record() -> None:
    from ganpipe.tracking.spool import Spool

    def half(real: Any, spool: Spool, entry: dict[str, Any], file: Path | None = None) -> None:
        spool._file.write(str(entry)[:20])
        spool._file.flush()
        die()

    _around(Spool, "append", 9, lambda *a, **k: True, half)


MOMENTS: dict[str, Callable[[], None]] = {
    "halfway through writing a checkpoint": _half_a_checkpoint,
    "before a written checkpoint is moved to its place": _unmoved_checkpoint,
    "before old checkpoints are removed": lambda: _before(CheckpointStore, "best", 3),
    "halfway through writing a sample grid": _half_a_grid,
    "halfway through noting a metric": _half_a_record,
    "before MLflow gets metrics": _before_log_batch,
    "after MLflow has taken metrics, before that is noted": _after_log_batch,
}
