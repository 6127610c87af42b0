"""Images from a generator, as bytes: each is a function of its seed and what it is given alone, up to rounding.

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import GanpipeError
from ..gans.base import Batch, Gan, Progress
from ..gans.draws import Draws, InterpolatedDraws, SeededDraws, derive_seed
from ..gans.spec import to_tensor

SEED_STRIDE = 1_000_000
Given = Mapping[str, Tensor | np.ndarray | Sequence[int]]
"""Rows by the names of a GAN's conditions."""


def sample_seeds(seed: int, num_samples: int) -> list[int]:
    """The seeds of an evaluation's samples: plain numbers, so that the registered model makes the same images of them.

    With seed 0 they are 0, 1, 2, …; other seeds begin at multiples of a million.
    """
    return list(range(seed * SEED_STRIDE, seed * SEED_STRIDE + num_samples))


def quantise(images_NCHW: Tensor) -> np.ndarray:
    """[-1, 1] floats -> bytes as in a PNG, (N, C, H, W): rounded to the nearest, ties to even."""
    scaled = (images_NCHW.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).cpu().numpy()


def place_of(gan: Gan) -> tuple[torch.device, torch.dtype]:
    """Where the networks are, and the type in which they compute."""
    for parameter in gan.parameters():
        if not parameter.is_meta:  # a loaded generator may have a discriminator without weights
            return parameter.device, parameter.dtype
    raise GanpipeError(f"{type(gan).__name__} has no weights to sample from")


def sample_images(
    gan: Gan,
    progress: Progress,
    seeds: Sequence[int],
    given: Given | None = None,
    truncation: float = 1.0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> np.ndarray:
    """One image a seed, uint8, (N, C, H, W).

    Args:
        given: rows of what the GAN's `conditions` name, one per seed: labels, pictures as bytes or in [-1, 1], tokens.
            What can be drawn from the seeds, such as labels, is drawn where left out.
        device: where to compute; moves the GAN there. By default where it is.

    Raises:
        GanpipeError: something is given that the GAN does not take, in another number than of seeds or out of range; or
            it lacks what cannot be drawn.
    """
    if device is not None:
        gan.to(device)
    conditions = conditions_of(gan, seeds, given or {})
    parts = [np.empty((0, *gan.output.row_shape), np.uint8)]
    for start in range(0, len(seeds), batch_size):
        rows = slice(start, start + batch_size)
        draws = SeededDraws(seeds[rows])
        chosen = {name: values[rows] for name, values in conditions.items()}
        parts.append(_sample(gan, progress, draws, len(seeds[rows]), chosen, truncation, seeds[start]))
    return np.concatenate(parts)


def interpolate(
    gan: Gan,
    progress: Progress,
    seed: int,
    other_seed: int,
    num_steps: int = 10,
    given: Given | None = None,
    truncation: float = 1.0,
) -> np.ndarray:
    """Images on the way from one latent to another under one condition, both ends included, as `sample_images` gives
    them.

    Args:
        given: one row of each; what can be drawn is drawn from `seed` where left out.
    """
    conditions = conditions_of(gan, [seed], given or {})
    fractions = np.linspace(0, 1, num_steps).tolist()
    repeated = {name: values.expand(num_steps, *values.shape[1:]) for name, values in conditions.items()}
    draws = InterpolatedDraws(seed, other_seed, fractions)
    return _sample(gan, progress, draws, num_steps, repeated, truncation, seed)


def conditions_of(gan: Gan, seeds: Sequence[int], given: Given) -> dict[str, Tensor]:
    """What the GAN takes for these seeds, one row each.

    Raises:
        GanpipeError: see `sample_images`.
    """
    name_of_gan = type(gan).__name__
    if unknown := [name for name in given if name not in gan.conditions]:
        raise GanpipeError(f"{name_of_gan} takes no {unknown[0]}; leave it out")
    found = {}
    for name, spec in gan.conditions.items():
        if name not in given:
            # A stream of their own: the latents of a seed are the same with a given and with a drawn label.
            rows = spec.drawn(SeededDraws([derive_seed(name, seed) for seed in seeds]))
            if rows is None:
                raise GanpipeError(f"{name_of_gan} needs a row of {name!r} for each seed")
        else:
            values = given[name]
            rows = values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values, spec.dtype))
            if tuple(rows.shape) != (len(seeds), *spec.row_shape):
                raise GanpipeError(
                    f"{len(rows)} rows of {name!r} ({tuple(rows.shape[1:])}) for {len(seeds)} seeds; give one per "
                    f"seed, of the shape {spec.row_shape}"
                )
            if (bounds := spec.bounds()) and len(rows) and not (bounds[0] <= rows.min() and rows.max() <= bounds[1]):
                raise GanpipeError(
                    f"{name} from {rows.min():g} to {rows.max():g}; expected {bounds[0]:g} to {bounds[1]:g}"
                )
        found[name] = rows
    return found


def _sample(
    gan: Gan,
    progress: Progress,
    draws: Draws,
    num_samples: int,
    given: Mapping[str, Tensor],
    truncation: float,
    seed: int,
) -> np.ndarray:
    device, dtype = place_of(gan)
    fields = {name: to_tensor(rows, device, dtype) for name, rows in given.items()}
    conditions = Batch(num_samples, draws, fields, device, dtype, truncation)
    with evaluating(gan), torch.inference_mode(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed("sampling", seed))  # for what is no property of a sample: noise maps, dropout
        return quantise(gan.sample(conditions, progress))


@contextlib.contextmanager
def evaluating(gan: Gan) -> Iterator[None]:
    """Within this context the GAN is in evaluation mode; afterwards each module is in the mode that it was in."""
    modes = [(module, module.training) for module in gan.modules()]
    gan.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
