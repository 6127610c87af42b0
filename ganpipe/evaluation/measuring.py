"""What every measurement of a generator does: features of its samples, its protocol, rounding.

Legend: N images, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..gans.base import Gan, Progress
from ..gans.spec import FieldReader
from .extractors import Extractor
from .frames import one_frame_each
from .given import read_rows
from .protocol import Protocol
from .reference import Reference
from .sampling import sample_images, translate_images
from .settings import EvaluateSettings

_SIGNIFICANT_DIGITS = 6
PART = 512

Part = Callable[[slice, np.ndarray, dict[str, Tensor]], object]
"""(rows, images (N, C, H, W) or frames (N, T, C, H, W), the fields that were read for them); called for one part of the
samples at a time."""


def rounded(value: float) -> float:
    """To 6 significant digits."""
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")


def protocol_of(
    gan: Gan, reference: Reference, settings: EvaluateSettings, quick: bool = False, averaged: bool = True
) -> Protocol:
    """The protocol of `evaluate`, or of the quick FID."""
    labels = "as_reference" if gan.given else "none"
    common: dict[str, Any] = {"reference": reference.protocol, "averaged": averaged, "labels": labels}
    if quick:
        return Protocol(metric="quick", num_samples=settings.quick.num_samples, seed=settings.quick.seed, **common)
    return Protocol(
        metric="full",
        num_samples=settings.num_samples,
        seed=settings.seed,
        kid_subsets=settings.kid_subsets,
        kid_subset_size=settings.kid_subset_size,
        num_neighbours=settings.num_neighbours,
        **common,
    )


@dataclass(frozen=True)
class SampleInputs:
    """What samples are made from.

    Attributes:
        seeds: one per sample, N.
        fields: reads what the GAN is given, and whatever else `part_done` of `sample_features` needs: row i belongs to
            sample i.
        num_real: of the reference. Sample i is compared with its image i; after the last, the first follows again.
        direction: for a GAN with several directions; None for the first.
    """

    seeds: Sequence[int]
    fields: FieldReader
    num_real: int
    direction: str | None = None


def sample_features(
    gan: Gan,
    progress: Progress,
    extractor: Extractor,
    inputs: SampleInputs,
    batch_size: int,
    part_done: Part | None = None,
) -> np.ndarray:
    """Features of generated images, or of one frame each, (N, D), float32; only a part of the images is in memory at
    a time.

    Args:
        batch_size: images that the generator makes at once.
        part_done: called with each part of the images.
    """
    seeds = inputs.seeds
    features_ND = np.empty((len(seeds), extractor.num_features), np.float32)
    size = max(batch_size, PART)  # enough for every thread of the extractor
    for start in range(0, len(seeds), size):
        rows = slice(start, min(start + size, len(seeds)))
        found = read_rows(inputs.fields, rows.start, rows.stop)
        if inputs.direction is None:
            conditions = {name: found[name] for name in gan.given}
            images = sample_images(gan, progress, seeds[rows], conditions, batch_size=batch_size)
        else:
            taken = found[gan.directions[inputs.direction][0]]
            images = translate_images(gan, progress, seeds[rows], inputs.direction, taken, batch_size)
        numbers_N = np.arange(rows.start, rows.stop) % inputs.num_real
        features_ND[rows] = extractor.features(one_frame_each(images, numbers_N))
        if part_done is not None:
            part_done(rows, images, found)
    return features_ND
