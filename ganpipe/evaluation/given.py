"""What a generator is given while it is measured: rows of the evaluation's split, the same for every measurement.

Legend: N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.loading.dataset import Dataset
from ..errors import GanpipeError
from ..gans.base import Gan
from ..gans.spec import FieldReader, Order, Origin, is_view, to_tensor
from .reference import Reference, choose


class TooFewImages(GanpipeError):
    """The reference has too few images of a domain."""


def field_reader(
    gan: Gan,
    dataset: Dataset,
    indices_N: np.ndarray,
    seed: int,
    names: Sequence[str],
    others: Mapping[str, Origin] | None = None,
) -> FieldReader:
    """Reads fields of `gan` from the evaluation's split: row i belongs to sample i.

    Args:
        indices_N: the reference's images. Sample i takes the i-th of them; after the last image, the first
            follows again. The images of a view come in a random order of their own.
        seed: of the reference.
        names: of the fields that are read.
        others: further fields, which are none of the GAN's.
    """
    origins = gan.origins(gan.config, gan.data)

    def order(members: Sequence[int] | np.ndarray, group: str) -> Order:
        chosen = choose(len(members), len(members), seed) if group else indices_N
        return lambda start, stop: chosen[np.arange(start, stop) % len(chosen)]

    return FieldReader({**{name: origins[name] for name in names}, **(others or {})}, dataset, order, seed)


def read_rows(reader: FieldReader, start: int, stop: int) -> dict[str, Tensor]:
    """Rows [start, stop), pictures in [-1, 1], on the CPU."""
    return reader.read(start, stop, lambda rows: to_tensor(rows, torch.device("cpu"), torch.float32))


def reference_for(gan: Gan, reference: Reference, field: str | None = None) -> Reference:
    """The real images with which `gan`'s are compared: all, or those of the domain that it makes.

    Args:
        field: which of the GAN's fields it makes, for a GAN with several directions; by default the first.

    Raises:
        GanpipeError: it makes images of a field that is not the dataset's main one.
        TooFewImages: the reference has fewer than 2 of the domain.
    """
    origin = gan.origins(gan.config, gan.data)[field or gan.fields[0]]
    if origin.field != gan.data.main:
        raise GanpipeError(
            f"{type(gan).__name__} makes images of the field {origin.field!r}; they are measured against the dataset's "
            f"main field, which is {gan.data.main!r}"
        )
    if not is_view(origin):
        return reference
    if reference.labels_N is None or not (mask_N := reference.labels_N == origin.number).sum() >= 2:
        raise TooFewImages(
            f"{type(gan).__name__} makes images of class {origin.number}, of which the reference has fewer than 2; "
            "raise evaluate.num_real"
        )
    return Reference(reference.protocol, reference.features_ND[mask_N], reference.indices_N[mask_N], None)
