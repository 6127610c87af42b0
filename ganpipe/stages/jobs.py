"""The training job that `tune` and `train` hand to Ray: put together from params and shards."""

from __future__ import annotations

from ..data.manifest import Manifest
from ..evaluation.evaluate import QuickFid
from ..evaluation.figures import SampleGrid
from ..gans import load
from ..gans.base import GanConfig
from ..params import Params
from ..training.feed import spec_of
from ..training.worker import TrainingJob
from .common import SHARDS


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
