"""GANs whose papers claim that they cover the modes of the data do: a ring of eight spots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training_parts import SPEC, case_of, fetch_of

from ganpipe.evaluation.sampling import sample_images
from ganpipe.gans import load
from ganpipe.training.distributed import World
from ganpipe.training.loop import Loop
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import TrainingState

NUM_MODES = 8
NUM_SAMPLES = 256


def ring(num_images: int, jitter: float = 0.3) -> dict[str, Tensor]:
    """Soft spots around eight places of a circle, each place equally often."""
    generator = np.random.default_rng(0)
    angles = 2 * np.pi * (np.arange(num_images) % NUM_MODES) / NUM_MODES
    rows, columns = (7.5 + 5 * f(angles) + jitter * generator.standard_normal(num_images) for f in (np.sin, np.cos))
    y, x = np.mgrid[0:16, 0:16]
    squares = (x - columns[:, None, None]) ** 2 + (y - rows[:, None, None]) ** 2
    images = torch.from_numpy(2 * np.exp(-squares / 4)[:, None] - 1)
    return {"image": images, "label": torch.from_numpy(np.arange(num_images) % 2)}


def share_of_each_mode(images_NCHW: np.ndarray) -> np.ndarray:
    """The share of samples that look like each of the eight spots more than like any other, and at least a little."""
    prototypes = (ring(NUM_MODES, jitter=0)["image"].numpy().reshape(NUM_MODES, -1) + 1) / 2
    samples = images_NCHW.reshape(len(images_NCHW), -1) / 255
    cosine = (
        samples
        @ prototypes.T
        / (np.linalg.norm(samples, axis=1, keepdims=True).clip(1e-9) * np.linalg.norm(prototypes, axis=1))
    )
    modes = np.where(cosine.max(1) > 0.7, cosine.argmax(1), NUM_MODES)
    return np.bincount(modes, minlength=NUM_MODES + 1)[:NUM_MODES] / len(images_NCHW)


@pytest.mark.parametrize(
    ("name", "config", "num_batches"),
    [
        ("wgan_gp", {"generator_width": 64, "critic_width": 64, "num_latents": 8, "num_critic_updates": 3}, 1500),
        ("bgan", {"generator_width": 8, "discriminator_width": 8, "num_latents": 8}, 800),
        ("r3gan", {"generator_width": 8, "discriminator_width": 8, "num_latents": 8}, 250),
    ],
)
def test_every_mode_is_covered(name: str, config: dict[str, Any], num_batches: int) -> None:
    gan_class = load(name)
    own = gan_class.Config.model_validate({**case_of(name).config, **config})
    faster = own.with_optimizers({player: {"lr": 2 * own.optimizer_of(player).lr} for player in own.players})
    settings = TrainSettings.model_validate(
        {"gan": name, "num_images": 32 * num_batches, "batch_size": 32, "precision": "fp32", "ema_half_life": 500}
    )
    state = TrainingState(name, faster, SPEC, settings)
    loop = Loop(state, fetch_of(state.gan, ring(512), state.dtype), settings, World())
    loop.run()
    with state.averaged() as gan:
        shares = share_of_each_mode(sample_images(gan, state.progress, range(NUM_SAMPLES)))
    assert (shares > 1 / 64).sum() >= NUM_MODES - 1, shares
    assert shares.sum() > 0.6, "samples between the modes"


def test_the_measure_tells_a_collapsed_generator() -> None:
    images = ((ring(256)["image"].numpy() + 1) * 127.5).round().astype(np.uint8)
    assert (share_of_each_mode(images) > 0.1).all()
    assert (share_of_each_mode(images[::NUM_MODES]) > 0).sum() == 1
    assert share_of_each_mode(np.full((4, 1, 16, 16), 128, np.uint8)).sum() == 0
