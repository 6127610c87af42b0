"""What `tune` and `train` share: how they begin, the job that they hand to Ray, and a Ray cluster with room for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .. import environment, services
from ..data.shards.manifest import Manifest
from ..data.shards.shard_set import ShardSet
from ..evaluation.quick_fid import QuickFid
from ..evaluation.reference import require_images
from ..evaluation.sample_grids import SampleGrid
from ..gans.base import GanConfig
from ..params import Params, load_params
from ..tracking import lineage
from ..tracking.run_log import RunLog
from ..tracking.runs import Tracker
from ..training import cluster, job_api
from ..training.feed import data_spec_of
from ..training.start import Start
from ..training.worker import TrainingJob
from .common import require_no_arguments, shards_here, verified_shards
from .domains import require_domains
from .shared_storage import shards_for_all
from .trainable import require_trainable

RunT = TypeVar("RunT")
ResultT = TypeVar("ResultT")


def begin(argv: list[str], stage: str, about: str | None) -> tuple[Params, Manifest]:
    """The settings, and the shards' manifest, after `verified_shards`.

    Raises:
        GanpipeError: there are arguments, params.yaml is wrong, there is no commit, a shard is damaged, or there are
            too few images, in one domain or in all, to measure a generator with.
    """
    require_no_arguments(argv, stage, about)
    params = load_params()
    if params.register_.require_commit:
        lineage.require_commit(Path.cwd())
    manifest = verified_shards(params)
    require_images(manifest, params.evaluate)
    require_domains(params, manifest, shards_here(params, manifest).finder())
    return params, manifest


@dataclass(frozen=True)
class Needs:
    """What a stage asks of the cluster.

    Attributes:
        section: the section of params.yaml with these numbers.
        num_workers: the fewest workers with which the stage can begin.
        cpus, gpus: per worker.
        may_grow: whether the stage uses hosts that join while it runs.
    """

    section: str
    num_workers: int
    cpus: float
    gpus: float
    may_grow: bool = False


def needs_of(params: Params, stage: str) -> Needs:
    """What `tune` or `train` asks for."""
    tune, train = params.tune, params.cluster
    if stage == "tune":
        return Needs("tune", tune.workers_per_trial, tune.cpus_per_worker, tune.gpus_per_worker)
    grows = train.fewest_workers < train.most_workers
    return Needs("cluster", train.fewest_workers, train.cpus_per_worker, train.gpus_per_worker, grows)


def job_server() -> str | None:
    """The job server that RAY_ADDRESS names; None where Ray is reached as a part of the cluster."""
    address = services.ray_address(environment.home()) or ""
    return address if job_api.is_job_server(address) else None


def connect_ray(params: Params, manifest: Manifest, needs: Needs, tracking_uri: str) -> ShardSet:
    """Connect to RAY_ADDRESS, else to this checkout's own Ray, started where it does not run yet.

    Returns:
        The shards, as the hosts of that cluster find them.

    Raises:
        GanpipeError: Ray cannot be reached, has no room after cluster.wait_seconds, or has hosts that do not reach what
            the work needs.
    """
    address = services.ensure("ray", environment.home()).address
    cluster.connect(address)
    cluster.require(needs.num_workers, needs.cpus, needs.gpus, params.cluster.wait_seconds, needs.section)
    may_grow = needs.may_grow and not environment.is_loopback(address)
    return shards_for_all(shards_here(params, manifest), params.cluster, tracking_uri, needs.cpus, needs.gpus, may_grow)


def run_concurrently(opening: Callable[[], RunT], work: Callable[[], ResultT]) -> tuple[RunT, Future[ResultT]]:
    """Open the MLflow run in a thread while this one does `work`: MLflow and Ray both take seconds to reach.

    Returns:
        What `opening` returned, and the outcome of `work`. An error of `work` is raised where its result is taken, so
        that the run, which is open by then, ends with that error.
    """
    done: Future[ResultT] = Future()
    with ThreadPoolExecutor(1) as thread:
        opened = thread.submit(opening)
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)
    return opened.result(), done


def training_job(
    params: Params,
    manifest: Manifest,
    config: GanConfig,
    folder: str,
    shards: ShardSet | None = None,
    start: Start | None = None,
) -> TrainingJob:
    """The job of params.yaml.

    Args:
        folder: of the training's work.
        shards: as the hosts of the cluster find them; by default, as this host does.
        start: weights to start from.

    Raises:
        GanpipeError: the GAN cannot train in this way, or on such data.
    """
    require_trainable(params, data_spec_of(manifest))
    shards = shards or shards_here(params, manifest)
    score = QuickFid(shards, params.evaluate)
    return TrainingJob(
        name=params.train.gan,
        gan=params.train.gan,
        config=config,
        settings=params.train,
        shards=shards,
        folder=folder,
        num_threads=max(1, int(params.cluster.cpus_per_worker)),
        score=score,
        score_name=score.name,
        draw=SampleGrid(params.train.num_grid_samples, params.train.seed, shards, params.evaluate.split),
        start=start,
    )


@dataclass(frozen=True)
class OpenTrial:
    """Opens a trial's MLflow run, a child of the search's, in the trial's process; MLflow may be away."""

    tracker: Tracker
    key: str
    parent_run_id: str
    gan: str

    def __call__(self, trial: str, adam: Mapping[str, Any]) -> RunLog:
        run = self.tracker.deferred_run(
            f"trial-{trial}", self.key, name=f"{self.gan} trial {trial}", parent_run_id=self.parent_run_id
        )
        run.log_params(adam)
        run.set_tags(lineage.compute_tags(lineage.environment()))
        return run


@dataclass(frozen=True)
class OpenTraining:
    """Opens the training's MLflow run in the worker that logs, and notes what that worker computes with."""

    tracker: Tracker
    run_id: str

    def __call__(self) -> RunLog:
        run, found = self.tracker.attach(self.run_id), lineage.environment()
        run.set_tags({**lineage.environment_tags(found), **lineage.compute_tags(found)})
        run.log_text(lineage.environment_text(found), lineage.ENVIRONMENT_FILE)
        run.log_text(lineage.requirements_text(), "requirements.txt")
        return run
