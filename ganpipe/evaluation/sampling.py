"""Images from a generator, as bytes: each is a function of its seed (and label) alone, up to rounding.

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import GanpipeError
from ..gans.base import Batch, Gan, Progress
from ..gans.draws import Draws, InterpolatedDraws, SeededDraws, derive_seed

SEEDS_APART = 1_000_000


def sample_seeds(seed: int, num_samples: int) -> list[int]:
    """The seeds of an evaluation's samples: plain numbers, so that the registered model makes the same images of them.

    With seed 0 they are 0, 1, 2, …; other seeds begin at multiples of a million.
    """
    return list(range(seed * SEEDS_APART, seed * SEEDS_APART + num_samples))


def quantise(images_NCHW: Tensor) -> np.ndarray:
    """[-1, 1] floats -> bytes as in a PNG, (N, C, H, W): rounded to the nearest, ties to even."""
    scaled = (images_NCHW.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).cpu().numpy()


def place_of(gan: Gan) -> tuple[torch.device, torch.dtype]:
    """Where the networks are, and the type in which they compute."""
    for parameter in gan.parameters():
        if not parameter.is_meta:  # a loaded generator may have left its opponent without weights
            return parameter.device, parameter.dtype
    raise GanpipeError(f"{type(gan).__name__} has no weights to sample from")


def sample_images(
    gan: Gan,
    progress: Progress,
    seeds: Sequence[int],
    labels: Sequence[int] | np.ndarray | None = None,
    truncation: float = 1.0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> np.ndarray:
    """One image a seed, uint8, (N, C, H, W).

    Args:
        labels: one a seed, for a GAN with the field `label`; drawn from the seeds where left out.
        device: where to compute; moves the GAN there. By default where it is.

    Raises:
        GanpipeError: labels for a GAN that takes none, other numbers of labels than of seeds, or a GAN that needs
            another field than labels.
    """
    if device is not None:
        gan.to(device)
    labels_N = _labels(gan, seeds, labels)
    parts = [np.empty((0, *gan.data.image_shape), np.uint8)]
    for start in range(0, len(seeds), batch_size):
        rows = slice(start, start + batch_size)
        draws = SeededDraws(seeds[rows])
        label_rows = None if labels_N is None else labels_N[rows]
        parts.append(_sample(gan, progress, draws, len(seeds[rows]), label_rows, truncation, seeds[start]))
    return np.concatenate(parts)


def interpolate(
    gan: Gan,
    progress: Progress,
    seed: int,
    other_seed: int,
    num_steps: int = 10,
    label: int | None = None,
    truncation: float = 1.0,
) -> np.ndarray:
    """Images on the way from one latent to another under one label, both ends included, uint8, (num_steps, C, H, W).

    Args:
        label: drawn from `seed` where left out, for a GAN with labels.
    """
    labels_N = _labels(gan, [seed], None if label is None else [label])
    fractions = np.linspace(0, 1, num_steps).tolist()
    repeated = None if labels_N is None else labels_N.expand(num_steps)
    draws = InterpolatedDraws(seed, other_seed, fractions)
    return _sample(gan, progress, draws, num_steps, repeated, truncation, seed)


def _labels(gan: Gan, seeds: Sequence[int], labels: Sequence[int] | np.ndarray | None) -> Tensor | None:
    needed = [name for name in gan.fields if name not in ("image", "label")]
    if needed:
        raise GanpipeError(f"{type(gan).__name__} needs the field {needed[0]!r}; only labels can be drawn for samples")
    if "label" not in gan.fields:
        if labels is not None:
            raise GanpipeError(f"{type(gan).__name__} takes no labels; leave them out")
        return None
    if labels is None:
        # A stream of their own: the latents of a seed are the same with a given and with a drawn label.
        return SeededDraws([derive_seed("label", seed) for seed in seeds]).integers(gan.data.num_classes)
    if len(labels) != len(seeds):
        raise GanpipeError(f"{len(labels)} labels for {len(seeds)} seeds; give one a seed")
    labels_N = torch.as_tensor(np.asarray(labels), dtype=torch.int64)
    if len(labels_N) and (int(labels_N.min()) < 0 or int(labels_N.max()) >= gan.data.num_classes):
        raise GanpipeError(
            f"labels from {labels_N.min()} to {labels_N.max()}; expected 0 to {gan.data.num_classes - 1}"
        )
    return labels_N


def _sample(
    gan: Gan, progress: Progress, draws: Draws, num_samples: int, labels_N: Tensor | None, truncation: float, seed: int
) -> np.ndarray:
    device, dtype = place_of(gan)
    fields = {} if labels_N is None else {"label": labels_N.to(device)}
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
