"""Images of more than 8 bits per channel: which of their values becomes black, and which becomes white.

8-bit images always use 0 to 255. Images of 16 or 32 bits or of floating-point numbers may use a part of their type's
range: a 12-bit camera writes 0 to 4095 into 16-bit files, and with the full range its images are nearly black. A single
image does not show which range was meant (it may just be dark), so `choose_range` looks at all images of a kind.

Legend: H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from ..settings import DataSettings

Kind = Literal["16-bit", "16-bit colour", "signed 16-bit", "32-bit", "signed 32-bit", "floating-point"]
Range = tuple[float, float]
"""The value that becomes black, and the one that becomes white."""

FULL_RANGES: Mapping[Kind, Range] = {
    "16-bit": (0, 2**16 - 1),
    "16-bit colour": (0, 2**16 - 1),
    "signed 16-bit": (-(2**15), 2**15 - 1),
    "32-bit": (0, 2**32 - 1),
    "signed 32-bit": (-(2**31), 2**31 - 1),
    "floating-point": (0, 1),
}
"""The range of each kind's type; 0 to 1 for floating-point numbers."""
_INTEGER_RANGES: tuple[Range, ...] = tuple((0, 2**bits - 1) for bits in (8, 10, 12, 14, 16))
_FLOAT_RANGES: tuple[Range, ...] = ((0, 1), (-1, 1), (0, 255))
_CHUNK_VALUES = 2**20


class Extent(NamedTuple):
    """The least and the greatest value of one image, or of several images of one kind."""

    kind: Kind
    low: float
    high: float
    num_images: int = 1


def extent_of(values: np.ndarray, kind: Kind) -> Extent:
    """The extent of the values of one image, an array of any shape that is not empty."""
    return Extent(kind, float(values.min()), float(values.max()))


def merge_extents(extents: Iterable[Extent]) -> dict[Kind, Extent]:
    """One extent per kind that covers all given extents of that kind."""
    found: dict[Kind, Extent] = {}
    for extent in extents:
        before = found.get(extent.kind, extent._replace(num_images=0))
        found[extent.kind] = Extent(
            extent.kind,
            min(before.low, extent.low),
            max(before.high, extent.high),
            before.num_images + extent.num_images,
        )
    return found


def choose_range(extent: Extent) -> Range:
    """The range under `data.value_range: auto`: the first usual range that holds all values of a kind.

    The usual ranges are those of 8, 10, 12, 14 and 16 bits for whole numbers, and 0 to 1, -1 to 1 and 0 to 255 for
    floating-point numbers. If none of them holds all values, the range is that from the least value to the greatest.

    Args:
        extent: of all images of the kind.
    """
    usual = _FLOAT_RANGES if extent.kind == "floating-point" else _INTEGER_RANGES
    for low, high in usual:
        if low <= extent.low and extent.high <= high:
            return low, high
    return extent.low, extent.high


def range_for_image(extent: Extent, settings: DataSettings, decided: Mapping[Kind, Range]) -> Range:
    """The range of one image under these settings.

    Args:
        extent: of the image.
        decided: under `auto`, the dataset's range of each kind; for a missing kind the range is chosen by this image.
    """
    if settings.value_range == "full":
        return FULL_RANGES[extent.kind]
    if settings.value_range == "auto":
        return decided.get(extent.kind) or choose_range(extent)
    low, high = settings.value_range
    return low, high


def to_eight_bits(values_HW: np.ndarray, chosen: Range) -> np.ndarray:
    """One channel as uint8, (H, W): the range becomes 0 to 255, rounded to the nearest number; values outside it become
    0 or 255."""
    if values_HW.dtype.kind == "u" and values_HW.dtype.itemsize == 2:
        return np.asarray(_scaled(np.arange(2**16), chosen)[values_HW])
    flat = np.ascontiguousarray(values_HW).reshape(-1)
    result = np.empty(flat.shape, np.uint8)
    for start in range(
        0, len(flat), _CHUNK_VALUES
    ):  # in parts, because float64 values of a whole large image take much memory
        result[start : start + _CHUNK_VALUES] = _scaled(flat[start : start + _CHUNK_VALUES], chosen)
    return result.reshape(values_HW.shape)


def _scaled(values: np.ndarray[Any, Any], chosen: Range) -> np.ndarray:
    low, high = chosen
    if low == high:  # all images have one and the same value
        return np.zeros(values.shape, np.uint8)
    scaled = np.floor((values.astype(np.float64) - low) * 255 / (high - low) + 0.5)
    return scaled.clip(0, 255).astype(np.uint8)


def range_warning(extent: Extent, chosen: Range) -> str | None:
    """A sentence on the range that `auto` chose for the images of a kind; None if it is the full range of the type."""
    if chosen == FULL_RANGES[extent.kind]:
        return None
    low, high = (f"{bound:,.6g}" if extent.kind == "floating-point" else f"{bound:,.0f}" for bound in chosen)
    found = " to ".join(
        f"{bound:,.6g}" if extent.kind == "floating-point" else f"{bound:,.0f}" for bound in (extent.low, extent.high)
    )
    bits = f" ({int(chosen[1]).bit_length()} bits)" if chosen in _INTEGER_RANGES else ""
    return (
        f"{extent.num_images:,} {extent.kind} image(s) with values from {found}: {low} is taken as black and {high} as "
        f"white{bits}; set data.value_range if that is wrong"
    )
