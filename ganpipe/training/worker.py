"""Training on Ray: what a worker does, and how a group of them is started. Tune and Train use the same function."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fsspec
import torch

from ..data.loading.opening import open_dataset
from ..data.loading.stream import StreamedDataset
from ..data.shards.shard_set import ShardSet
from ..errors import GanpipeError, UnavailableError
from ..gans.base import GanConfig
from .alarms import Watch, out_of_patience
from .allocator import keep_freed_memory
from .arrivals import ShardArrivals
from .distributed import World
from .failures import FAILS_AGAIN, describe_error, is_transient, unwrap_error
from .feed import Feed, data_spec_of, prefetched
from .loop import Loop
from .observers import (
    Checkpoints,
    EndAt,
    Log,
    RenderGrid,
    Report,
    SampleGrids,
    Score,
    StopOnRequest,
    Tracker,
    log_history,
    throttled,
)
from .settings import ClusterSettings, TrainSettings
from .start import Start, start_from
from .state import CheckpointStore, Diverged, EndedEarly, Stopped, TrainingState


@dataclass(frozen=True)
class TrainingJob:
    """Everything a worker needs; it is pickled to the workers.

    Attributes:
        name: shown in progress lines.
        gan, config: which GAN, and its settings.
        shards: folder of the shards and their manifest, or the set as all hosts find it.
        folder: folder or URL of this training's checkpoints and sample grids.
        num_threads: threads of a worker that computes on the CPU.
        score, score_name: scores a generator at each checkpoint; its metric's name.
        draw: draws sample grids.
        open_tracker: called on rank 0.
        start: weights to start from, where it does not start at random.
        tells_alarms: whether alarms are printed, and not only logged.
        end_at: images after which it ends at a checkpoint, although its settings say that it is longer.
    """

    name: str
    gan: str
    config: GanConfig
    settings: TrainSettings
    shards: str | ShardSet
    folder: str
    num_threads: int = 1
    score: Score | None = None
    score_name: str = "score"
    draw: RenderGrid | None = None
    open_tracker: Callable[[], Tracker] | None = None
    start: Start | None = None
    end_at: int | None = None
    tells_alarms: bool = True

    @property
    def store(self) -> CheckpointStore:
        return CheckpointStore(f"{self.folder}/checkpoints", self.settings.keep_checkpoints)

    def is_done(self) -> bool:
        """Whether the training has come to its end, or ended because it got no better."""
        newest = self.store.newest()
        if newest == 0 or newest >= self.settings.num_images:
            return newest > 0
        state = self.store.load(newest)
        filesystem, grid = fsspec.core.url_to_fs(f"{self.folder}/samples/{state['step']:07d}.png")
        has_ended = out_of_patience(state["scores"], self.settings.patience_images)
        return has_ended and (self.draw is None or bool(filesystem.exists(grid)))  # the grid is drawn last


def run_training(job: TrainingJob, world: World | None = None, report: Report | None = None) -> TrainingState:
    """Train to the end on this worker, from the last checkpoint where there is one.

    Raises:
        Diverged: a loss is no longer a finite number.
        Stopped: the training was asked to end (`CheckpointStore.request_stop`), and a checkpoint is written.
    """
    world = world or World()
    keep_freed_memory()
    torch.set_num_threads(job.num_threads)
    torch.use_deterministic_algorithms(job.settings.deterministic)
    # By default torch fills each new tensor, to reveal reads of unwritten memory, which takes time at every step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if world.device.type == "cuda":
        # cuBLAS needs this for deterministic results; it is read when the first handle is made.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    dataset = open_dataset(job.shards, "train")
    state = TrainingState(job.gan, job.config, data_spec_of(dataset.manifest), job.settings, world)
    state.configure_torch()  # before the tracker notes what this process computes with
    with contextlib.ExitStack() as stack:
        if world.rank == 0:
            stack.enter_context(job.store.locked())
        # Rank 0 decides for all: another rank might see a checkpoint that was added or removed in between.
        newest = int(world.broadcast_number(job.store.newest() if world.rank == 0 else 0))
        if newest:
            state.load_state_dict(job.store.load(newest, world.device))
            if world.rank == 0:
                print(f"{job.name}: going on from {newest:,} images", flush=True)
        elif job.start is not None:
            start_from(state, job.start)
        world.broadcast(state.gan.parameters())
        tracker = None
        if job.open_tracker is not None and world.rank == 0:
            tracker = stack.enter_context(job.open_tracker())
            log_history(state, job.score_name, tracker)
        watch = Watch(world.rank, tracker, job.name, job.tells_alarms)
        watch.look(state, quietly=True)
        observers: list[Any] = [Log(world.rank, tracker, job.name, watch)]
        grids = None
        if job.draw is not None and world.rank == 0:
            grids = SampleGrids(job.folder, job.settings.samples_at_updates, job.draw, tracker)
            observers.append(grids)
        checkpoints = Checkpoints(
            world, job.settings.checkpoint_every, job.store, job.score, job.score_name, report=report, tracker=tracker
        )
        if newest:
            checkpoints.report_progress(state)  # it may have been stopped between the last checkpoint and its report
        observers += [checkpoints, watch, StopOnRequest(world, job.store, checkpoints)]
        origins = state.gan.origins(job.config, state.gan.data)
        seed, mirror = job.settings.seed, job.settings.mirror
        place = (state.device, state.dtype, state.memory_format)
        feed = Feed(dataset, origins, seed, *place, mirror, job.settings.shuffling)
        if world.any(isinstance(dataset, StreamedDataset)):  # hosts may differ
            stack.callback(dataset.close)
            arrivals = ShardArrivals(dataset, feed, job.settings, world, checkpoints)
            arrivals(state)
            observers.append(arrivals)
        with prefetched(feed, job.settings.batch_size, state.device) as fetch:
            try:
                watch(state)
                if job.end_at is not None:
                    observers.append(EndAt(job.end_at))
                    observers[-1](state)
                Loop(state, fetch, job.settings, world).run(observers)
            except EndedEarly:
                if grids is not None:
                    grids.draw(state)
    return state


def _train_worker(job: TrainingJob, every_report: bool) -> tuple[str, str] | None:
    """One worker of a Ray Train group. Returns kind and message of an early end that needs no other try, else None."""
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    world = World(context.get_world_rank(), context.get_world_size(), device, context.get_local_world_size())
    try:
        report = ray.train.report if every_report else throttled(ray.train.report, world)
        run_training(job, world, report)
    except (Diverged, Stopped) as error:
        return type(error).__name__, str(error)
    return None


def train(job: TrainingJob, cluster: ClusterSettings, callbacks: list[Any] | None = None) -> None:
    """Run `job` on a group of Ray Train workers; Ray must be running. If one fails, all go on from a checkpoint.

    Raises:
        GanpipeError: the training diverged, or the code is at fault.
        UnavailableError: workers were lost, or storage was unreachable, more often than cluster.max_failures.
        Stopped: it was asked to end.
    """
    import ray.train

    from .rendezvous import HostAddressConfig
    from .trainer import Trainer

    if cluster.most_workers > job.settings.batch_size:
        raise GanpipeError(
            f"cluster.num_workers: got {cluster.most_workers}; each worker needs an image of the batch, and "
            f"train.batch_size is {job.settings.batch_size}"
        )
    resources = {"CPU": cluster.cpus_per_worker} | ({"GPU": cluster.gpus_per_worker} if cluster.gpus_per_worker else {})
    trainer = Trainer(
        # Not by train_loop_config: the actor that controls the workers unpickles that, and would have to import torch.
        functools.partial(_train_worker, job, every_report=bool(callbacks)),
        torch_config=HostAddressConfig(),  # type: ignore[arg-type]
        scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]
            num_workers=cluster.num_workers,  # type: ignore[arg-type]
            use_gpu=cluster.gpus_per_worker > 0,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=cluster.resize_seconds,
        ),
        run_config=ray.train.RunConfig(  # type: ignore[arg-type]
            name="ray",
            storage_path=job.folder,
            failure_config=ray.train.FailureConfig(max_failures=cluster.max_failures),
            callbacks=callbacks,
        ),
    )
    job.store.clear_stop_request()
    result = _fit(trainer, job.name, cluster.max_failures)
    ended_early: tuple[str, str] | None = result.return_value
    if ended_early is not None:
        kind, message = ended_early
        raise Stopped(message) if kind == Stopped.__name__ else Diverged(message)


def _fit(trainer: Any, name: str, max_failures: int) -> Any:
    """The trainer's result; where the actor that controls the workers dies, another one takes its place.

    Raises:
        GanpipeError: an error of the code.
        UnavailableError: workers or controllers died more often than `max_failures`.
    """
    import ray.train

    for failures_left in range(max_failures, -1, -1):
        try:
            return trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _explained(error) from error
        except ray.exceptions.RayActorError as error:
            reason = str(error).strip().splitlines()[0]
            if not failures_left:
                raise UnavailableError(
                    f"training's controller died: {reason}; the same command goes on from the last checkpoint"
                ) from error
            print(f"{name}: the training's controller died; starting another", flush=True)
    raise AssertionError("max_failures is below 0")


def _explained(error: Any) -> GanpipeError:
    """What workers raised, without Ray's wrapping; the traceback of an error of the code is printed."""
    failures = list((getattr(error, "worker_failures", None) or {}).values())
    failures = failures or [getattr(error, "controller_failure", error)]
    for failure in failures:
        if not is_transient(failure):
            if isinstance(unwrap_error(failure), GanpipeError):
                return GanpipeError(f"training failed: {describe_error(failure, '')}")
            print(error, file=sys.stderr, flush=True)
            return GanpipeError(f"training failed: {describe_error(failure, str(error))}; {FAILS_AGAIN}")
    # A host or storage that is away now may be back at Prefect's next try.
    return UnavailableError(
        f"training failed: {describe_error(failures[0], str(error))}; the same command goes on from the last checkpoint"
    )
