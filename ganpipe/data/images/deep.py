"""Images of more than 8 bits a channel: their numbers as the file holds them, and 8 bits made of those.

Pillow has one channel of such numbers. Of colour with 16 bits a channel it keeps the upper 8, which is right over the
full range and of no use for 12-bit data; imagecodecs reads those.

Legend: H height, W width, C channels: grey or red, green and blue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from PIL import Image

from ...errors import GanpipeError
from ..settings import DataSettings
from .value_range import FULL, Extent, Kind, Range, extent_of, range_of, to_eight_bits

_KEY = "ganpipe_deep"
_ORIENTATION = 274
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 258, 262, 284, 339
_RGB, _SEPARATE, _SIGNED = 2, 2, 2
"""Values of the last three of these tags of TIFF."""
_TURNS: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda values: values[:, ::-1],
    3: lambda values: values[::-1, ::-1],
    4: lambda values: values[::-1],
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: values[::-1, ::-1].swapaxes(0, 1),
    8: lambda values: np.rot90(values),
}
"""EXIF's orientation -> what makes the image upright."""


class BadNumbers(GanpipeError):
    """An image whose numbers cannot be used; says why."""


@dataclass(frozen=True)
class Deep:
    """What is known of a decoded image of more than 8 bits beside its pixels.

    Attributes:
        content: of the file, for colour, which is decoded again.
        is_separate: one channel after the other, of which Pillow reads every second byte.
        has_colour_for_ground: one colour is transparent, which Pillow looks for among the upper 8 bits.
        box: left, upper, right, lower: the part of the upright image that is meant; all of it when None.
    """

    kind: Kind
    content: bytes = b""
    orientation: int = 1
    is_separate: bool = False
    has_colour_for_ground: bool = False
    box: tuple[int, int, int, int] | None = None


class _Numbers(NamedTuple):
    """Colour and opacity; the latter None where there is none."""

    values_HWC: np.ndarray
    alpha_HW: np.ndarray | None = None


def kind_of(image: Image.Image) -> Kind | None:
    """Which numbers an opened image file holds, before it is loaded; None for 8 bits a channel."""
    if image.mode.startswith("I;16"):
        return "16-bit"
    if image.mode == "F":
        return "floating-point"
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if image.mode == "I":
        if image.format == "PPM":  # whatever its own maximum is, Pillow makes 65535 of it
            return "16-bit"
        is_signed = not tags or tags.get(_SAMPLE_FORMAT) == (_SIGNED,)
        if tags.get(_BITS_PER_SAMPLE) == (16,):
            return "signed 16-bit"
        return "signed 32-bit" if is_signed else "32-bit"
    if image.format == "PNG":
        tiles: list[Any] = getattr(image, "tile", [])
        return "16-bit colour" if any(str(tile.args).endswith(";16B") for tile in tiles) else None
    is_wide = tags.get(_BITS_PER_SAMPLE) in ((16,) * 3, (16,) * 4) and tags.get(_PHOTOMETRIC) == _RGB
    return "16-bit colour" if is_wide and set(tags.get(_SAMPLE_FORMAT, (1,))) == {1} else None


def remember(image: Image.Image, content: bytes) -> Deep | None:
    """What is to be known of an opened image, before it is loaded."""
    kind = kind_of(image)
    if kind != "16-bit colour":
        return None if kind is None else Deep(kind)
    is_separate = getattr(image, "tag_v2", {}).get(_PLANAR) == _SEPARATE
    orientation = image.getexif().get(_ORIENTATION, 1)  # for a PNG this loads it, up to what may follow the pixels
    return Deep(kind, content, orientation, is_separate, "transparency" in image.info)


def mark(image: Image.Image, deep: Deep | None) -> None:
    """Keep it with the image; also that there is nothing, since a file may hold a text under any key."""
    image.info[_KEY] = deep


def crop(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of a decoded, upright image, with what is known of it.

    Args:
        box: left, upper, right, lower.
    """
    part = image.crop(box)
    deep = _known(image)
    mark(part, deep and replace(deep, box=box))
    return part


def _known(image: Image.Image) -> Deep | None:
    if _KEY in image.info:
        found: Deep | None = image.info[_KEY]
        return found
    kind = kind_of(image)
    return None if kind is None else Deep(kind)


def _numbers(image: Image.Image, deep: Deep) -> _Numbers:
    if deep.content:
        return _colour(deep, image.size)
    values_HW = np.asarray(image)
    if deep.kind == "16-bit":
        values_HW = values_HW.astype(np.uint16)
    elif deep.kind == "32-bit":
        values_HW = values_HW.view(np.uint32)  # Pillow knows signed ones only
    elif deep.kind == "floating-point" and not np.isfinite(values_HW).all():
        raise BadNumbers("has pixels that are no finite numbers (NaN or infinite)")
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return _Numbers(values_HW[:, :, None])
    return _Numbers(values_HW[:, :, None], np.where(values_HW == transparent, 0, 2**16 - 1).astype(np.uint16))


def _colour(deep: Deep, size: tuple[int, int]) -> _Numbers:
    is_png = deep.content.startswith(b"\x89PNG")
    values = imagecodecs.png_decode(deep.content) if is_png else imagecodecs.tiff_decode(deep.content)
    if deep.is_separate:
        values = np.moveaxis(values, 0, -1)
    values_HWC = _TURNS[deep.orientation](values) if deep.orientation in _TURNS else values
    if deep.box is not None:
        left, upper, right, lower = deep.box
        values_HWC = values_HWC[upper:lower, left:right]
    if values_HWC.dtype != np.uint16 or values_HWC.shape[1::-1] != size:
        raise BadNumbers(f"holds other numbers than its header says: {values_HWC.dtype} {values_HWC.shape}")
    if values_HWC.shape[2] in (2, 4):
        return _Numbers(values_HWC[:, :, :-1], values_HWC[:, :, -1])
    return _Numbers(values_HWC)


def _extent(numbers: _Numbers, kind: Kind) -> Extent:
    """Of what is not transparent: a value that only marks the ground says nothing of the range."""
    values = numbers.values_HWC if numbers.alpha_HW is None else numbers.values_HWC[numbers.alpha_HW > 0]
    return extent_of(values if values.size else np.zeros(1, values.dtype), kind)


def extent(image: Image.Image) -> Extent | None:
    """The least and the greatest value of a decoded image; None for one of 8 bits.

    Raises:
        BadNumbers: see there.
    """
    deep = _known(image)
    return None if deep is None else _extent(_numbers(image, deep), deep.kind)


def shallow(image: Image.Image, settings: DataSettings, decided: Mapping[Kind, Range]) -> Image.Image:
    """A decoded image with 8 bits a channel: one that has no more is returned as it is.

    Args:
        decided: as `range_of`.

    Raises:
        BadNumbers: see there.
    """
    deep = _known(image)
    if deep is None:
        return image
    numbers = _numbers(image, deep)
    chosen = range_of(_extent(numbers, deep.kind), settings, decided)
    is_right = not (deep.is_separate or deep.has_colour_for_ground)
    if deep.content and is_right and chosen == FULL[deep.kind]:
        return image
    bands = [to_eight_bits(channel_HW, chosen) for channel_HW in np.moveaxis(numbers.values_HWC, -1, 0)]
    if numbers.alpha_HW is not None:
        bands.append(to_eight_bits(numbers.alpha_HW, FULL["16-bit"]))
    return Image.merge(("L", "LA", "RGB", "RGBA")[len(bands) - 1], [Image.fromarray(band) for band in bands])
