"""Families that claim to cover the modes of the data do so: eight places on a ring, and no place is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training_parts import make_loop

from ganpipe.evaluation.sampling import sample_images

NUM_MODES, SIDE, RADIUS = 8, 16, 5.0
NUM_SAMPLES = 256
LEAST_SHARE = 0.02
"""Of all samples, for a mode to be covered; an even share is 0.125."""


def _spots(angles: np.ndarray, jitter: np.ndarray) -> Tensor:
    """Soft spots on a ring, in [0, 1], (N, 1, 16, 16)."""
    centre = (SIDE - 1) / 2
    x_N, y_N = centre + RADIUS * np.cos(angles) + jitter[0], centre + RADIUS * np.sin(angles) + jitter[1]
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return torch.from_numpy(np.exp(-((x - x_N[:, None, None]) ** 2 + (y - y_N[:, None, None]) ** 2) / 6)[:, None])


def ring(num_images: int) -> dict[str, Tensor]:
    """Images in [-1, 1] of one spot, near one of eight places on a ring."""
    random = np.random.default_rng(0)
    modes = random.integers(0, NUM_MODES, num_images)
    images = _spots(2 * np.pi * modes / NUM_MODES, random.normal(0, 0.25, (2, num_images)))
    return {"image": 2 * images - 1, "label": torch.from_numpy(modes % 2)}


def num_covered(images_NCHW: Tensor) -> int:
    """How many of the places have their share of the samples that are nearly a spot at a place.

    Args:
        images_NCHW: in [-1, 1].
    """
    places = _spots(2 * np.pi * np.arange(NUM_MODES) / NUM_MODES, np.zeros((2, NUM_MODES))).flatten(1)
    found = (images_NCHW.double() + 1).flatten(1)
    cosines_NM = torch.nn.functional.normalize(found, dim=1) @ torch.nn.functional.normalize(places, dim=1).T
    nearest_N, mode_N = cosines_NM.max(1)
    shares_M = torch.bincount(mode_N[nearest_N > 0.8], minlength=NUM_MODES) / len(found)
    return int((shares_M >= LEAST_SHARE).sum())


def _adams(*players: str, **values: float) -> dict[str, Any]:
    return {f"adam_{player}": values for player in players}


CASES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "wgan_gp": (
        700,
        64,
        {
            "generator_width": 128,
            "critic_width": 128,
            "num_critic_updates": 3,
            **_adams("generator", lr=1e-3, beta1=0.0, beta2=0.9),
            **_adams("critic", lr=2e-3, beta1=0.0, beta2=0.9),
        },
    ),
    # All modes from batch 375 to 600 with these rates; with its own the place is narrow, and moves with the processor.
    "bgan": (
        490,
        64,
        {
            "generator_width": 16,
            "discriminator_width": 16,
            "num_latents": 32,
            **_adams("generator", lr=5e-4, beta1=0.5, beta2=0.999),
            **_adams("discriminator", lr=2e-4, beta1=0.5, beta2=0.999),
        },
    ),
    "r3gan": (
        300,
        32,
        {"gamma": 20.0, "final_gamma": 2.0, **_adams("generator", "discriminator", lr=5e-3, beta1=0.0, beta2=0.9)},
    ),
}
"""GAN -> number of batches, their size, settings under which it trains quickly."""


def test_only_places_with_samples_are_counted() -> None:
    images = ring(512)["image"]
    assert num_covered(images) == NUM_MODES
    assert num_covered(images[:1].expand(64, -1, -1, -1)) == 1
    assert num_covered(torch.zeros(64, 1, SIDE, SIDE)) == 0


@pytest.mark.parametrize("name", CASES)
def test_every_mode_is_covered(name: str) -> None:
    num_batches, batch_size, config = CASES[name]
    settings = {"batch_size": batch_size, "num_images": num_batches * batch_size, "precision": "fp32"}
    loop = make_loop(name, settings={**settings, "ema_half_life": 2000}, fields=ring(2048), **config)
    for _ in range(num_batches):
        loop.step()
    with loop.state.averaged() as gan:
        samples = sample_images(gan, loop.state.progress, range(NUM_SAMPLES))
    assert num_covered(torch.from_numpy(samples) / 127.5 - 1) == NUM_MODES
