"""A training that was made longer: it goes on from the end of the shorter one, as DVC keeps it, to the same bytes."""

from __future__ import annotations

import json
from typing import Any

import fsspec

from ..data.shards.manifest import Manifest
from ..gans import load
from ..params import Params
from ..training.settings import TrainSettings
from ..training.worker import TrainingJob
from .common import TRAIN
from .dvc_store import locked_content
from .runs import run_key

STATE = "state.pt"
"""In TRAIN: the last checkpoint, empty where `train.keep_state` is off."""
_NOT_LEARNED_FROM = (
    *("num_images", "log_every", "samples_at_updates", "num_grid_samples", "checkpoint_every", "keep_checkpoints"),
    *("patience_images", "select", "keep_state"),
)
"""Settings of `train` that decide when a training ends and what is told of it, but not its steps."""

_COMPUTING = ("num_workers", "cpus_per_worker", "gpus_per_worker")
_SCORING = ("extractor", "resize", "split", "quick")


def steps_key(params: Params, manifest: Manifest, settings: dict[str, Any]) -> str:
    """Digest of everything that decides the steps of a training, and not how many there are.

    Args:
        settings: `training_settings`, and where the first weights came from.
    """
    train = {name: value for name, value in settings["train"].items() if name not in _NOT_LEARNED_FROM}
    cluster = {name: settings["cluster"][name] for name in _COMPUTING}
    scoring = {name: settings["evaluate"][name] for name in _SCORING}  # the scores of both are one curve
    others = {name: value for name, value in settings.items() if name not in ("train", "cluster", "evaluate")}
    return run_key("train", params.train.gan, manifest.digest, "steps", train, cluster, scoring, others)


def go_on_from_shorter(job: TrainingJob, key: str) -> None:
    """Put the state of the last training, as dvc.lock names it, where this one finds its checkpoints: if it was the
    same but shorter, and this one has not begun.

    Args:
        key: `steps_key` of this training.
    """
    if job.store.list():
        return
    shorter = _shorter(job, key)
    if shorter is None:
        return
    so_far = f"the last training was the same up to {shorter:,} images"
    if why := depends_on_length(job.gan, job.settings):
        print(f"{so_far}; this one starts anew, because {why}", flush=True)
        return
    state = locked_content(TRAIN / STATE)
    if not state:
        print(f"{so_far}; this one starts anew, because {TRAIN / STATE} of then is not there", flush=True)
        return
    job.store.put(shorter, state)
    filesystem, folder = fsspec.core.url_to_fs(f"{job.folder}/samples")
    filesystem.makedirs(folder, exist_ok=True)
    for step in job.settings.samples_at_updates:
        name = f"{step:07d}.png"
        if (png := locked_content(TRAIN / "samples", name)) is not None:
            filesystem.pipe_file(f"{folder}/{name}", png)
    print(
        f"{so_far}: going on from there, to the bytes of a training of {job.settings.num_images:,} images", flush=True
    )


def depends_on_length(gan: str, settings: TrainSettings) -> str:
    """Why a longer training is not the shorter one and then more of it; empty where it is."""
    if settings.schedule.kind != "constant" or settings.schedule.warmup:
        return "its learning rates (train.schedule) depend on how much of the training is done"
    if settings.over_time:
        return "its optimisers' settings (train.over_time) depend on how much of the training is done"
    if settings.patience_images is not None or settings.select == "best":
        return "train.patience_images and train.select: best choose among all its checkpoints, and one is left"
    if load(gan).depends_on_length:
        return f"what {gan} does depends on how much of the training is done"
    return ""


def _shorter(job: TrainingJob, key: str) -> int | None:
    """How many images the last training has seen, if it was this one but shorter."""
    content = locked_content(TRAIN / "model.json")
    if content is None:
        return None
    try:
        trained = json.loads(content)
        same, seen = trained.get("steps_key") == key, trained.get("trained_images")
    except (ValueError, AttributeError):
        return None
    return seen if same and isinstance(seen, int) and 0 < seen < job.settings.num_images else None
