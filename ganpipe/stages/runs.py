"""What names a stage's work and its MLflow run: the code, settings and data that decide the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.shards.manifest import Manifest
from ..params import Params
from ..tracking import lineage
from ..tracking.seeds import RECIPE_TAG, SEED_TAG
from .code import code_digest


def run_key(stage: str, gan: str, *parts: Any) -> str:
    """Names a stage's work by everything that decides its result: code, settings, digests of inputs."""
    text = json.dumps([stage, code_digest(stage, gan), *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recipe_tags(params: Params, manifest: Manifest) -> dict[str, str]:
    """The training's seed, and a digest of everything else that decides its generator."""
    train, tune = params.train.model_dump(mode="json"), params.tune.model_dump(mode="json")
    seed = train.pop("seed")
    del tune["seed"]
    recipe = run_key("train", params.train.gan, train, tune, params.gan_config.model_dump(mode="json"), manifest.digest)
    return {RECIPE_TAG: recipe, SEED_TAG: str(seed)}


def run_tags(
    params: Params, manifest: Manifest, inputs: Sequence[Path], start: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What an MLflow run was made from: commit, DVC digests of `inputs`, environment, GAN, data, first weights.

    Args:
        start: `from` and `sha256` of the weights that the training starts from; None where it starts at random.
    """
    return {
        **lineage.git_tags(Path.cwd()),
        **lineage.dvc_tags(Path.cwd(), inputs),
        **lineage.environment_tags(lineage.environment()),
        "ganpipe.gan": params.train.gan,
        "ganpipe.data.source": manifest.source,
        "ganpipe.data.digest": manifest.digest,
        **recipe_tags(params, manifest),
        **{f"ganpipe.start.{key}": value for key, value in (start or {}).items()},
    }
