"""Images of more than 8 bits per channel: their values as the file holds them, and their conversion to 8 bits.

Pillow reads such values for images of one channel. For colour with 16 bits per channel it keeps the upper 8 bits, which
is right for data of the full range and useless for 12-bit data; therefore imagecodecs reads those files.

Legend: H height, W width, C channels (grey, or red, green and blue).
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
from .value_range import FULL_RANGES, Extent, Kind, Range, extent_of, range_for_image, to_eight_bits

_KEY = "ganpipe_deep"
_ORIENTATION = 274
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 258, 262, 284, 339
_RGB, _SEPARATE, _SIGNED = 2, 2, 2
"""Values of the TIFF tags PhotometricInterpretation, PlanarConfiguration and SampleFormat."""
_UPRIGHT_BY_ORIENTATION: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda values: values[:, ::-1],
    3: lambda values: values[::-1, ::-1],
    4: lambda values: values[::-1],
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: values[::-1, ::-1].swapaxes(0, 1),
    8: lambda values: np.rot90(values),
}
"""EXIF orientation -> function that turns the pixels (H, W, ...) upright. Orientation 1 needs none."""


class UnusablePixels(GanpipeError):
    """The pixel values of an image cannot be used; the message says why."""


@dataclass(frozen=True)
class DeepImage:
    """What is known about a decoded image of more than 8 bits, apart from Pillow's pixels.

    Attributes:
        content: the file's content if it is a colour image, because it is decoded a second time; else empty.
        orientation: EXIF orientation, 1 to 8.
        is_separate: the file stores one channel after the other; of those Pillow reads every second byte only.
        has_transparent_colour: one colour marks transparent pixels; Pillow compares its upper 8 bits only.
        box: (left, upper, right, lower) of the part of the upright image that is used; None for the whole image.
    """

    kind: Kind
    content: bytes = b""
    orientation: int = 1
    is_separate: bool = False
    has_transparent_colour: bool = False
    box: tuple[int, int, int, int] | None = None


class _Pixels(NamedTuple):
    """Pixel values of one image.

    Attributes:
        alpha_HW: opacity, uint16, 0 for transparent pixels; None if all pixels are opaque.
    """

    values_HWC: np.ndarray
    alpha_HW: np.ndarray | None = None


def deep_kind_of(image: Image.Image) -> Kind | None:
    """The type of the values in an image file that is opened and not loaded yet; None for 8 bits per channel."""
    if image.mode.startswith("I;16"):
        return "16-bit"
    if image.mode == "F":
        return "floating-point"
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if image.mode == "I":
        if image.format == "PPM":  # Pillow scales the file's own maximum to 65535
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


def inspect(image: Image.Image, content: bytes) -> DeepImage | None:
    """Information about an opened image that is lost when Pillow loads it; None for 8 bits per channel."""
    kind = deep_kind_of(image)
    if kind != "16-bit colour":
        return None if kind is None else DeepImage(kind)
    is_separate = getattr(image, "tag_v2", {}).get(_PLANAR) == _SEPARATE
    orientation = image.getexif().get(_ORIENTATION, 1)  # loads a PNG, because its EXIF data may follow the pixels
    return DeepImage(kind, content, orientation, is_separate, "transparency" in image.info)


def attach(image: Image.Image, deep: DeepImage | None) -> None:
    """Store the information with the image. None is stored, too, because a file may hold a text under the same key."""
    image.info[_KEY] = deep


def crop(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of a decoded, upright image, together with the information about it.

    Args:
        box: (left, upper, right, lower) in pixels.
    """
    part = image.crop(box)
    deep = _deep_image_of(image)
    attach(part, deep and replace(deep, box=box))
    return part


def _deep_image_of(image: Image.Image) -> DeepImage | None:
    if _KEY in image.info:
        found: DeepImage | None = image.info[_KEY]
        return found
    kind = deep_kind_of(image)
    return None if kind is None else DeepImage(kind)


def has_more_than_eight_bits(image: Image.Image) -> bool:
    """Whether a decoded image has more than 8 bits per channel."""
    return _deep_image_of(image) is not None


def _pixels_of(image: Image.Image, deep: DeepImage) -> _Pixels:
    if deep.content:
        return _colour_pixels(deep, image.size)
    values_HW = np.asarray(image)
    if deep.kind == "16-bit":
        values_HW = values_HW.astype(np.uint16)
    elif deep.kind == "32-bit":
        values_HW = values_HW.view(np.uint32)  # Pillow reads them as signed numbers
    elif deep.kind == "floating-point" and not np.isfinite(values_HW).all():
        raise UnusablePixels("has pixels that are not finite numbers (NaN or infinite)")
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return _Pixels(values_HW[:, :, None])
    return _Pixels(values_HW[:, :, None], np.where(values_HW == transparent, 0, 2**16 - 1).astype(np.uint16))


def _colour_pixels(deep: DeepImage, size: tuple[int, int]) -> _Pixels:
    is_png = deep.content.startswith(b"\x89PNG")
    values = imagecodecs.png_decode(deep.content) if is_png else imagecodecs.tiff_decode(deep.content)
    if deep.is_separate:
        values = np.moveaxis(values, 0, -1)
    values_HWC = (
        _UPRIGHT_BY_ORIENTATION[deep.orientation](values) if deep.orientation in _UPRIGHT_BY_ORIENTATION else values
    )
    if deep.box is not None:
        left, upper, right, lower = deep.box
        values_HWC = values_HWC[upper:lower, left:right]
    if values_HWC.dtype != np.uint16 or values_HWC.shape[1::-1] != size:
        raise UnusablePixels(f"its pixels do not match its header: they are {values_HWC.dtype} {values_HWC.shape}")
    if values_HWC.shape[2] in (2, 4):
        return _Pixels(values_HWC[:, :, :-1], values_HWC[:, :, -1])
    return _Pixels(values_HWC)


def _extent(numbers: _Pixels, kind: Kind) -> Extent:
    """The extent of the pixels that are not transparent: a value that marks transparent pixels is not part of the
    range."""
    values = numbers.values_HWC if numbers.alpha_HW is None else numbers.values_HWC[numbers.alpha_HW > 0]
    return extent_of(values if values.size else np.zeros(1, values.dtype), kind)


def extent(image: Image.Image) -> Extent | None:
    """The least and the greatest value of a decoded image; None for an image of 8 bits.

    Raises:
        UnusablePixels: the image has values that are not finite, or that do not match its header.
    """
    deep = _deep_image_of(image)
    return None if deep is None else _extent(_pixels_of(image, deep), deep.kind)


def to_eight_bit_image(image: Image.Image, settings: DataSettings, decided: Mapping[Kind, Range]) -> Image.Image:
    """A decoded image with 8 bits per channel, mode "L", "LA", "RGB" or "RGBA"; an 8-bit image is returned as it is.

    Args:
        decided: the dataset's range of each kind, as in `range_for_image`.

    Raises:
        UnusablePixels: the image has values that are not finite, or that do not match its header.
    """
    deep = _deep_image_of(image)
    if deep is None:
        return image
    numbers = _pixels_of(image, deep)
    chosen = range_for_image(_extent(numbers, deep.kind), settings, decided)
    is_read_well_by_pillow = not (deep.is_separate or deep.has_transparent_colour)
    if deep.content and is_read_well_by_pillow and chosen == FULL_RANGES[deep.kind]:
        return image
    bands = [to_eight_bits(channel_HW, chosen) for channel_HW in np.moveaxis(numbers.values_HWC, -1, 0)]
    if numbers.alpha_HW is not None:
        bands.append(to_eight_bits(numbers.alpha_HW, FULL_RANGES["16-bit"]))
    return Image.merge(("L", "LA", "RGB", "RGBA")[len(bands) - 1], [Image.fromarray(band) for band in bands])
