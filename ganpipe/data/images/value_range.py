"""Images of more than 8 bits: which of their values becomes black, and which white.

8 bits have one range. 16 and 32 bits and floating-point numbers do not: a 12-bit camera writes 0 to 4095 into 16-bit
files, and taken over the full range its images are nearly black. One image cannot tell (it may just be dark), so the
range is a property of the dataset: `decide` knows the extent of all images of a kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from ..settings import DataSettings

Kind = Literal["16-bit", "16-bit colour", "signed 16-bit", "32-bit", "signed 32-bit", "floating-point"]
Range = tuple[float, float]
"""The value that becomes black, and the one that becomes white."""

FULL: Mapping[Kind, Range] = {
    "16-bit": (0, 2**16 - 1),
    "16-bit colour": (0, 2**16 - 1),
    "signed 16-bit": (-(2**15), 2**15 - 1),
    "32-bit": (0, 2**32 - 1),
    "signed 32-bit": (-(2**31), 2**31 - 1),
    "floating-point": (0, 1),
}
_WHOLE: tuple[Range, ...] = tuple((0, 2**bits - 1) for bits in (8, 10, 12, 14, 16))
_FLOATING: tuple[Range, ...] = ((0, 1), (-1, 1), (0, 255))
_PART = 2**20


class Extent(NamedTuple):
    """The least and the greatest value of an image, or of several."""

    kind: Kind
    low: float
    high: float
    num_images: int = 1


def extent_of(values: np.ndarray, kind: Kind) -> Extent:
    """Of one image's values; there is at least one."""
    return Extent(kind, float(values.min()), float(values.max()))


def together(extents: Iterable[Extent]) -> dict[Kind, Extent]:
    """Of all images of each kind."""
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


def decide(extent: Extent) -> Range:
    """The range under `auto`, by all images of a kind: the first usual one that holds their values.

    Whole numbers: 8, 10, 12, 14 or 16 bits. Floating-point numbers: 0 to 1, -1 to 1, 0 to 255. Where none holds them,
    from their least value to their greatest.
    """
    usual = _FLOATING if extent.kind == "floating-point" else _WHOLE
    for low, high in usual:
        if low <= extent.low and extent.high <= high:
            return low, high
    return extent.low, extent.high


def range_of(extent: Extent, settings: DataSettings, decided: Mapping[Kind, Range]) -> Range:
    """The range that `settings` give an image.

    Args:
        decided: under `auto`, the dataset's; a kind that is missing is decided by this image alone.
    """
    if settings.value_range == "full":
        return FULL[extent.kind]
    if settings.value_range == "auto":
        return decided.get(extent.kind) or decide(extent)
    low, high = settings.value_range
    return low, high


def to_eight_bits(values_HW: np.ndarray, chosen: Range) -> np.ndarray:
    """The range becomes 0 to 255, rounded to the nearest; what lies outside becomes black or white."""
    if values_HW.dtype.kind == "u" and values_HW.dtype.itemsize == 2:
        return np.asarray(_scaled(np.arange(2**16), chosen)[values_HW])
    flat = np.ascontiguousarray(values_HW).reshape(-1)
    result = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), _PART):  # a large image as 64-bit numbers would take much memory
        result[start : start + _PART] = _scaled(flat[start : start + _PART], chosen)
    return result.reshape(values_HW.shape)


def _scaled(values: np.ndarray[Any, Any], chosen: Range) -> np.ndarray:
    low, high = chosen
    if low == high:  # flat images, all of one value
        return np.zeros(values.shape, np.uint8)
    scaled = np.floor((values.astype(np.float64) - low) * 255 / (high - low) + 0.5)
    return scaled.clip(0, 255).astype(np.uint8)


def sentence(extent: Extent, chosen: Range) -> str | None:
    """What `auto` took the images of a kind for; None where that is their type's own range, as for any other image."""
    if chosen == FULL[extent.kind]:
        return None
    low, high = (f"{bound:,.6g}" if extent.kind == "floating-point" else f"{bound:,.0f}" for bound in chosen)
    found = " to ".join(
        f"{bound:,.6g}" if extent.kind == "floating-point" else f"{bound:,.0f}" for bound in (extent.low, extent.high)
    )
    bits = f" ({int(chosen[1]).bit_length()} bits)" if chosen in _WHOLE else ""
    return (
        f"{extent.num_images:,} {extent.kind} image(s) with values from {found}: {low} is taken as black and {high} as "
        f"white{bits}; set data.value_range if that is wrong"
    )
