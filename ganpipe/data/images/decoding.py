"""From a file's bytes to one square 8-bit image: decoding with limits, colour, shape, size.

Legend: C channels, H height, W width. Results are Pillow images of mode "L" (one channel) or "RGB" (three).
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import imagecodecs
import numpy as np
from PIL import ExifTags, Image, ImageOps

from ...errors import GanpipeError
from ..settings import DataSettings
from . import deep as deep_images
from .value_range import Extent, Kind, Range

# Formats that Pillow opens but cannot decode by itself: it would start another program (Ghostscript for EPS), or only
# knows the header.
_NOT_DECODED_HERE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# PNGs of shards: Pillow takes several times longer for small ones. At level 3, and without the two filters that take
# longest, they are as large as Pillow's.
_PNG_LEVEL = 3
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_HEADER_BYTES = 33
_COLOUR_TYPES = {1: 0, 3: 2}
"""Channels -> PNG's number for grey or RGB."""
_PNG_DEPTH_AT = 24
_EIGHT_BITS_AT_MOST = (b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")
"""How JPEG, GIF, BMP and WebP begin."""
_DARKEST, _BRIGHTEST, _FLATTEST = 16, 239, 4
"""Of 255: an image without a pixel above, below or further apart shows nothing that a person would see."""


_TURNED = range(5, 9)
"""EXIF's orientations that exchange width and height."""
MAX_PIXELS = "data.max_pixels"
NUM_BYTES_TO_TELL = 32
_JPEG_2000 = b"\0\0\0\x0cjP  \r\n\x87\n"
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", _JPEG_2000)
_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}
_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"}
"""Of AVIF and HEIF: what follows `ftyp`."""


class UnreadableImage(GanpipeError):
    """An image that cannot be decoded: truncated, not an image, too large, of an unknown range."""


@functools.cache
def formats() -> tuple[str, ...]:
    """Names of the formats that are decoded, as Pillow calls them; HEIF among them with the extra `heif`."""
    Image.init()
    if find_spec("pillow_heif") is not None:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(name for name in Image.ID if name not in _NOT_DECODED_HERE)


def heif_version() -> str | None:
    """Of libheif, which decodes HEIF; None where it is not installed."""
    if "HEIF" not in formats():
        return None
    from pillow_heif import libheif_version

    return str(libheif_version())


@functools.cache
def extensions() -> frozenset[str]:
    """Lower-case file extensions of those formats, with their dots."""
    known = formats()
    return frozenset(extension for extension, name in Image.registered_extensions().items() if name in known)


def begins_as_image(content: bytes) -> bool:
    """Whether a file that begins so is an image of a format that cameras, browsers and scanners write.

    Args:
        content: its first NUM_BYTES_TO_TELL bytes.
    """
    return (
        content.startswith(
            (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", _JPEG_2000)
        )
        or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")
        or (content[:2] == b"BM" and int.from_bytes(content[14:18], "little") in _BMP_HEADERS)
        or (content[4:8] == b"ftyp" and content[8:12] in _BRANDS)
    )


@contextlib.contextmanager
def _decoding(max_pixels: int = 0, content: bytes = b"", limit: str = MAX_PIXELS) -> Iterator[None]:
    """What Pillow raises, and warns of, as UnreadableImage."""
    try:
        with warnings.catch_warnings():
            # Pillow's own limit warns or raises by a global; ours is checked below, also before decoding.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except UnreadableImage:
        raise
    except deep_images.BadNumbers as error:
        raise UnreadableImage(str(error)) from None
    except Image.DecompressionBombError as error:  # Pillow's own limit, above the largest data.max_pixels
        size = re.search(r"\d+", str(error))
        pixels = f"{int(size.group()):,} pixels" if size else "too many pixels"
        raise UnreadableImage(f"{pixels}, more than {limit} = {max_pixels:,}") from None
    except Image.UnidentifiedImageError:
        if content[4:8] == b"ftyp" and content[8:12] in _BRANDS:
            raise UnreadableImage("a HEIF image; `pip install pillow-heif` to read them") from None
        raise UnreadableImage("not an image in any format known here") from None
    except (
        Exception
    ) as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ... on bad files
        raise UnreadableImage(f"cannot be decoded: {str(error) or type(error).__name__}") from error


def decode(
    content: bytes, max_pixels: int, allowed: tuple[str, ...] | None = None, limit: str = MAX_PIXELS
) -> Image.Image:
    """Decode an image file held in memory: its first frame, upright (EXIF orientation applied), in the file's mode.

    Args:
        allowed: formats, as Pillow calls them; None for all of `formats`.
        limit: what a message calls `max_pixels`.

    Raises:
        UnreadableImage: saying why, without the image's name.
    """
    if not content:
        raise UnreadableImage("the file is empty")
    with _decoding(max_pixels, content, limit):
        image = Image.open(io.BytesIO(content), formats=formats() if allowed is None else allowed)
        check_size(image.width, image.height, max_pixels, limit)
        deep = deep_images.remember(image, content)
        image.load()
        check_size(image.width, image.height, max_pixels, limit)  # an icon's picture may be larger than its header says
        upright = ImageOps.exif_transpose(image)
        deep_images.mark(upright, deep)
        return upright


def check_size(width: int, height: int, max_pixels: int, limit: str = MAX_PIXELS) -> None:
    """Raise UnreadableImage for an image with more pixels than allowed."""
    if width * height > max_pixels:
        raise UnreadableImage(f"{width} x {height} = {width * height:,} pixels, more than {limit} = {max_pixels:,}")


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height of an image file as it is decoded, upright, from its header; None where that cannot be read,
    which `decode` gives the reason for."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with _decoding(), Image.open(path, formats=formats()) as image:
            width, height = image.size
            # Pillow loads a PNG to look for an orientation behind its pixels.
            has_exif = image.format != "PNG" or "exif" in image.info
            is_turned = has_exif and image.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
    except UnreadableImage:
        return None
    return (height, width) if is_turned else (width, height)


def kind_of(content: bytes, max_pixels: int) -> Kind | None:
    """Of an image file, by its header; None for 8 bits, and for what cannot be read."""
    if content.startswith(_PNG_START):
        if content[_PNG_DEPTH_AT : _PNG_DEPTH_AT + 1] != b"\x10":
            return None
    elif not content or content.startswith(_EIGHT_BITS_AT_MOST):
        return None
    try:
        with _decoding(max_pixels):
            return deep_images.kind_of(Image.open(io.BytesIO(content), formats=formats()))
    except UnreadableImage:  # `decode` says what is wrong with it
        return None


def extent(image: Image.Image) -> Extent | None:
    """The least and the greatest value of a decoded image of more than 8 bits; None for any other.

    Raises:
        UnreadableImage: it has pixels that are no finite numbers.
    """
    with _decoding():
        return deep_images.extent(image)


def crop(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of a decoded image; `box` is left, upper, right, lower."""
    with _decoding():
        return deep_images.crop(image, box)


def flatten(
    image: Image.Image, settings: DataSettings, decided: Mapping[Kind, Range] = MappingProxyType({})
) -> Image.Image:
    """Mode "L" or "RGB" by `settings.channels`, with transparent pixels composed on the background.

    Args:
        decided: as `range_of`.

    Raises:
        UnreadableImage: it cannot be converted.
    """
    mode = "L" if settings.channels == 1 else "RGB"
    with _decoding():
        image = deep_images.shallow(image, settings, decided)
    try:
        if image.has_transparency_data:
            canvas = Image.new("RGBA", image.size, (*settings.background_rgb, 255))
            image = Image.alpha_composite(canvas, image.convert("RGBA"))
        return image if image.mode == mode else image.convert(mode)
    except (ValueError, OSError) as error:
        raise UnreadableImage(f"cannot be converted from {image.mode} to {mode}: {error}") from None


@functools.cache
def _background(mode: str, rgb: tuple[int, int, int]) -> float | tuple[int, ...] | None:
    return Image.new("RGB", (1, 1), rgb).convert(mode).getpixel((0, 0))


def _paste_centred(image: Image.Image, size: int, settings: DataSettings) -> Image.Image:
    canvas = Image.new(image.mode, (size, size), _background(image.mode, settings.background_rgb))
    canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return canvas


def scale(image: Image.Image, settings: DataSettings) -> Image.Image:
    """Crop and resize a flattened image so that it fits into a square with side `settings.image_size`.

    Scaling uses Lanczos with antialiasing. Under `shape: pad` the longer side decides the scale, under `crop` the
    shorter one.
    """
    size = settings.image_size
    width, height = image.size
    if settings.shape == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        if (width, height) != (side, side):
            image = image.crop((left, top, left + side, top + side))
    longest = max(image.size)
    if longest > size or (longest < size and settings.enlarge == "resize"):
        scaled = tuple(max(1, round(length * size / longest)) for length in image.size)
        image = image.resize((scaled[0], scaled[1]), Image.Resampling.LANCZOS)
    return image


def pad(image: Image.Image, settings: DataSettings) -> Image.Image:
    """Put a scaled image into the middle of its square, where it does not fill it."""
    size = settings.image_size
    return image if image.size == (size, size) else _paste_centred(image, size, settings)


def fit(image: Image.Image, settings: DataSettings) -> Image.Image:
    """Make a flattened image square with side `settings.image_size`: `scale`, then `pad`."""
    return pad(scale(image, settings), settings)


def oddity(image: Image.Image) -> str | None:
    """What a flattened image is where there is nothing to see in it: nearly black, nearly white or flat; else None."""
    extrema = image.getextrema()
    bands: Any = extrema if isinstance(extrema[0], tuple) else (extrema,)
    if max(high for _, high in bands) <= _DARKEST:
        return "nearly black"
    if min(low for low, _ in bands) >= _BRIGHTEST:
        return "nearly white"
    return "flat" if all(high - low <= _FLATTEST for low, high in bands) else None


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 pixels, (H, W) or (H, W, 3), as a PNG file's content without any metadata."""
    return bytes(imagecodecs.png_encode(pixels, level=_PNG_LEVEL, filter=imagecodecs.PNG.FILTER.FAST))


def decode_png_CHW(content: bytes, height: int, width: int, channels: int) -> np.ndarray:
    """A shard's PNG member as uint8, (C, H, W).

    Raises:
        UnreadableImage: it is not a PNG of that size and number of channels.
    """
    expected = (width, height, 8, _COLOUR_TYPES[channels])
    # All known from the header: nothing large is decoded.
    if not (content.startswith(_PNG_START) and len(content) > _PNG_HEADER_BYTES):
        raise UnreadableImage("not a sound PNG: it does not begin as one")
    found = struct.unpack_from(">IIBB", content, len(_PNG_START))
    if found != expected:
        raise UnreadableImage(f"a PNG of {_png_format(*found)}; expected {_png_format(*expected)}")
    try:
        pixels: np.ndarray = imagecodecs.png_decode(content)
    except (imagecodecs.PngError, ValueError) as error:
        raise UnreadableImage(f"not a sound PNG: {error}") from None
    pixels_HWC = pixels.reshape(height, width, -1)
    if pixels_HWC.shape[2] != channels:
        raise UnreadableImage("a PNG with a transparent colour; expected none")
    return np.moveaxis(pixels_HWC, -1, 0)


def _png_format(width: int, height: int, depth: int, colour_type: int) -> str:
    """In words; colour types are those of the PNG specification, section 11.2.2."""
    return f"{width} x {height} pixels, {depth} bits, colour type {colour_type}"
