"""A small dataset that a GAN learns in seconds, and a training on it without shards and without Ray."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ganpipe.evaluation.sample_grids import SampleGrid
from ganpipe.gans import load
from ganpipe.gans.base import DataSpec
from ganpipe.registry.package import build_package
from ganpipe.training.distributed import World
from ganpipe.training.loop import Fetch, Loop
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import TrainingState

SPEC = DataSpec.images(16, 1, 2)
SMALL: dict[str, dict[str, Any]] = {
    "gan": {"generator_width": 64, "discriminator_width": 64, "num_latents": 16},
    "dcgan": {"generator_width": 8, "discriminator_width": 8, "num_latents": 16},
    "cgan": {"latent_width": 64, "label_width": 64, "generator_width": 256, "discriminator_width": 100},
    "wgan_gp": {"generator_width": 64, "critic_width": 64, "num_latents": 16},
}
"""Settings under which a GAN trains quickly; a GAN that is not here trains with its own."""


def blobs(num_images: int, seed: int = 0) -> dict[str, Tensor]:
    """Images in [-1, 1] with a soft spot in the left half (label 0) or the right half (label 1)."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, num_images)
    columns = generator.uniform(3, 5, num_images) + 8 * labels
    rows = generator.uniform(5, 11, num_images)
    y, x = np.mgrid[0:16, 0:16]
    squares = (x - columns[:, None, None]) ** 2 + (y - rows[:, None, None]) ** 2
    return {"image": torch.from_numpy(2 * np.exp(-squares / 12)[:, None] - 1), "label": torch.from_numpy(labels)}


def fetch_from(fields: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Fetch:
    """An endless stream of `fields`, in order."""
    num_images = len(fields["image"])

    def fetch(start: int, stop: int) -> dict[str, Tensor]:
        rows = torch.arange(start, stop) % num_images
        return {n: v[rows].to(dtype) if v.is_floating_point() else v[rows] for n, v in fields.items()}

    return fetch


def make_loop(name: str, world: World | None = None, settings: dict[str, Any] | None = None, **config: Any) -> Loop:
    """A training of the GAN `name` on blobs, in fp64 unless `settings` say otherwise."""
    values = {"gan": name, "num_images": 10**6, "batch_size": 16, "precision": "fp64", "seed": 3, **(settings or {})}
    train_settings = TrainSettings.model_validate(values)
    world = world or World()
    gan_config = load(name).Config.model_validate({**SMALL.get(name, {}), **config})
    state = TrainingState(name, gan_config, SPEC, train_settings, world)
    return Loop(state, fetch_from(blobs(512), state.dtype), train_settings, world)


def weights_of(loop: Loop) -> dict[str, Tensor]:
    """Copies of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in loop.state.gan.named_parameters()}


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The largest absolute difference between two sets of weights."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def packaged(loop: Loop, folder: Path) -> Path:
    """The loop's generator as the package that is registered, built below `folder`."""
    state, train = loop.state, folder / "train"
    trained = {
        "gan": loop.settings.gan,
        "config": state.gan.config.model_dump(mode="json"),  # type: ignore[attr-defined]
        "averaged": True,
        "data": SPEC.to_json(),
        "progress": dataclasses.asdict(state.progress),
        "run_key": "0" * 16,
        "data_digest": "0" * 64,
    }
    train.mkdir()
    (train / "model.json").write_text(json.dumps(trained))
    save_file(state.generator_state(), train / "generator.safetensors")
    (folder / "samples.png").write_bytes(SampleGrid(4)(state.gan, state.progress))
    build_package(
        train,
        folder / "package",
        metrics={},
        protocol={},
        licence="none",
        card="# A card\n",
        samples_png=folder / "samples.png",
    )
    return folder / "package"
