"""Images from a generator, as bytes: each depends, up to rounding, on its seed and what it is given alone.

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


def device_and_dtype(gan: Gan) -> tuple[torch.device, torch.dtype]:
    """Where the networks are, and the type in which they compute.

    Raises:
        GanpipeError: the GAN has no weights.
    """
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
) -> np.ndarray:
    """One image per seed, uint8, (N, C, H, W), computed where the GAN is.

    Args:
        given: rows of what the GAN's `conditions` name, one per seed: labels, pictures as bytes or in [-1, 1], tokens.
            What is left out is drawn from the seeds where that is possible, as for labels.
        truncation: in (0, 1]; how far latents are pulled towards their mean. 1: not at all.
        batch_size: images that the generator makes at once; it changes them by rounding alone.

    Raises:
        GanpipeError: something is given that the GAN does not take, not one row per seed, or out of range; or something
            is missing that cannot be drawn.
    """
    return _in_batches(gan, progress, seeds, conditions_of(gan, seeds, given or {}), truncation, batch_size)


def translate_images(
    gan: Gan, progress: Progress, seeds: Sequence[int], direction: str, images: Tensor, batch_size: int = 64
) -> np.ndarray:
    """What the GAN makes of images in one of its `directions`, uint8, (N, C, H, W), one seed per image.

    Args:
        images: (N, C, H, W), as bytes or in [-1, 1].
        batch_size: see `sample_images`.
    """
    return _in_batches(gan, progress, seeds, {gan.directions[direction][0]: images}, 1.0, batch_size)


def _in_batches(
    gan: Gan,
    progress: Progress,
    seeds: Sequence[int],
    conditions: Mapping[str, Tensor],
    truncation: float,
    batch_size: int,
) -> np.ndarray:
    parts = [np.empty((0, *gan.output.row_shape), np.uint8)]
    for start in range(0, len(seeds), batch_size):
        rows = slice(start, start + batch_size)
        chosen = {name: values[rows] for name, values in conditions.items()}
        batch = batch_of(gan, len(seeds[rows]), SeededDraws(seeds[rows]), chosen, truncation)
        parts.append(_sample(gan, progress, batch, seeds[start]))
    return np.concatenate(parts)


def interpolate(
    gan: Gan,
    progress: Progress,
    seeds: tuple[int, int],
    num_steps: int = 10,
    given: Given | None = None,
    truncation: float = 1.0,
) -> np.ndarray:
    """Images on the way from one latent to another under one condition, uint8, (num_steps, C, H, W).

    Args:
        seeds: of the first and of the last image, which are those of `sample_images`.
        given: one row of each condition; what is left out is drawn from the first seed.
        truncation: see `sample_images`.

    Raises:
        GanpipeError: see `sample_images`.
    """
    conditions = conditions_of(gan, seeds[:1], given or {})
    fractions = np.linspace(0, 1, num_steps).tolist()
    repeated = {name: values.expand(num_steps, *values.shape[1:]) for name, values in conditions.items()}
    batch = batch_of(gan, num_steps, InterpolatedDraws(*seeds, fractions), repeated, truncation)
    return _sample(gan, progress, batch, seeds[0])


def reconstruct_images(gan: Gan, progress: Progress, fields: Mapping[str, Tensor], batch_size: int = 64) -> np.ndarray:
    """What encoder and generator make of images, uint8, (N, C, H, W), computed where the GAN is.

    Args:
        fields: rows of the GAN's `fields`, pictures in [-1, 1].
        batch_size: images at once; it changes them by rounding alone.

    Raises:
        GanpipeError: the GAN has no encoder.
    """
    num_images = len(fields[gan.fields[0]])
    parts = [np.empty((0, *gan.output.row_shape), np.uint8)]
    for start in range(0, num_images, batch_size):
        rows = range(start, min(start + batch_size, num_images))
        chosen = {name: values[start : rows.stop] for name, values in fields.items()}
        batch = batch_of(gan, len(rows), SeededDraws(rows), chosen, truncation=1.0)
        with sampling(gan, seed=start), torch.inference_mode():
            parts.append(quantise(gan.reconstruct(batch, progress)))
    return np.concatenate(parts)


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
            # From a stream of its own, so that a seed has the same latents whether its label is given or drawn.
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


def batch_of(gan: Gan, num_samples: int, draws: Draws, given: Mapping[str, Tensor], truncation: float) -> Batch:
    """What `gan.sample` is called with: rows of the conditions, where the networks are and in their type."""
    device, dtype = device_and_dtype(gan)
    fields = {name: to_tensor(rows, device, dtype) for name, rows in given.items()}
    return Batch(num_samples, draws, fields, device, dtype, truncation)


def _sample(gan: Gan, progress: Progress, conditions: Batch, seed: int) -> np.ndarray:
    with sampling(gan, seed), torch.inference_mode():
        return quantise(gan.sample(conditions, progress))


@contextlib.contextmanager
def sampling(gan: Gan, seed: int) -> Iterator[None]:
    """Within this context the GAN is in evaluation mode, and what its networks draw by themselves (dropout, noise maps)
    follows from `seed`; the process's own random state is as before afterwards."""
    device = device_and_dtype(gan)[0]
    with evaluating(gan), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed("sampling", seed))
        yield


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
