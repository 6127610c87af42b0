"""What `tune` and `train` share: how they begin, the job that they hand to Ray, and Ray with room for it."""

from __future__ import annotations

from .. import environment, services
from ..data.manifest import Manifest, verify
from ..evaluation.evaluate import QuickFid
from ..evaluation.figures import SampleGrid
from ..gans import load
from ..gans.base import GanConfig
from ..params import Params, load_params
from ..training import cluster
from ..training.feed import spec_of
from ..training.worker import TrainingJob
from .common import SHARDS, require_no_arguments


def begin(argv: list[str], stage: str) -> tuple[Params, Manifest]:
    """The settings, and the shards' manifest once every shard is as it says.

    Raises:
        GanpipeError: there are arguments, params.yaml is wrong, or a shard is damaged.
    """
    require_no_arguments(argv, stage)
    return load_params(), verify(SHARDS)


def reach_ray(section: str, num_workers: int, cpus: float, gpus: float, wait_seconds: float) -> None:
    """Connect to RAY_ADDRESS, else to this checkout's own Ray, started where it does not run yet.

    Args:
        section: of params.yaml, that asks for so many workers of so many CPUs and GPUs each.

    Raises:
        GanpipeError: Ray cannot be reached, or has no room after `wait_seconds`.
    """
    cluster.connect(services.ensure("ray", environment.home()).address)
    cluster.require(num_workers, cpus, gpus, wait_seconds, section)


def training_job(params: Params, manifest: Manifest, config: GanConfig, folder: str) -> TrainingJob:
    """The job of params.yaml.

    Raises:
        GanpipeError: the GAN cannot train on such data.
    """
    load(params.train.gan).check(config, spec_of(manifest))
    shards = str(SHARDS.absolute())
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
        draw=SampleGrid(params.train.num_grid_samples, params.train.seed),
    )
