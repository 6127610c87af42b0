"""From the bytes of an image file to one square 8-bit image: decoding with limits, colour, shape, size.

Legend: C channels, H height, W width. Results are Pillow images of mode "L" (one channel) or "RGB" (three channels).
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

# Formats that Pillow opens and cannot decode by itself: it would start another program (Ghostscript for EPS), or it
# reads the header only.
_NOT_DECODED_HERE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# imagecodecs writes the PNGs of shards, because Pillow takes several times longer for small images. At level 3, and
# without the two slowest filters, the files are as large as Pillow's.
_PNG_LEVEL = 3
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_HEADER_BYTES = 33
_COLOUR_TYPES = {1: 0, 3: 2}
"""Number of channels -> PNG's colour type for grey or RGB (PNG specification, section 11.2.2)."""
_PNG_DEPTH_AT = 24
_FIRST_BYTES_OF_8_BIT_FORMATS = (b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")
"""How JPEG, GIF, BMP and WebP begin."""
DARKEST, BRIGHTEST, FLATTEST = 16, 239, 4
"""Limits, of 255, for images in which a person sees nothing: no pixel is above `DARKEST`, no pixel is below
`BRIGHTEST`, or the values of each channel differ by at most `FLATTEST`."""
_HALF = 128
_SWAPS_SIDES = range(5, 9)
"""EXIF orientations that exchange width and height."""
MAX_PIXELS = "data.max_pixels"
NUM_FIRST_BYTES = 32
_JPEG_2000 = b"\0\0\0\x0cjP  \r\n\x87\n"
_FIRST_BYTES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", _JPEG_2000)
_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}
_HEIF_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"}
"""Brands of AVIF and HEIF: the bytes after `ftyp`."""


class UnreadableImage(GanpipeError):
    """An image cannot be read or decoded: it is missing, truncated, too large, or not an image."""


@functools.cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are decoded here; HEIF is among them if the extra `heif` is installed."""
    Image.init()
    if find_spec("pillow_heif") is not None:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(name for name in Image.ID if name not in _NOT_DECODED_HERE)


def heif_version() -> str | None:
    """Version of libheif, which decodes HEIF; None if it is not installed."""
    if "HEIF" not in formats():
        return None
    from pillow_heif import libheif_version

    return str(libheif_version())


@functools.cache
def extensions() -> frozenset[str]:
    """File extensions of all `formats`, in lower case and with their dots."""
    known = formats()
    return frozenset(extension for extension, name in Image.registered_extensions().items() if name in known)


def begins_as_image(content: bytes) -> bool:
    """Whether a file is an image in a format that cameras, browsers and scanners write, by its first bytes.

    Args:
        content: its first NUM_FIRST_BYTES bytes.
    """
    return (
        content.startswith(_FIRST_BYTES)
        or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")
        or (content[:2] == b"BM" and int.from_bytes(content[14:18], "little") in _BMP_HEADERS)
        or (content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS)
    )


@contextlib.contextmanager
def decoding_errors(max_pixels: int = 0, content: bytes = b"", limit: str = MAX_PIXELS) -> Iterator[None]:
    """Turns every error of Pillow's decoders into UnreadableImage, and silences Pillow's own warning on large images.

    Args:
        max_pixels: the limit that the message names.
        content: the file's content, to recognise a HEIF image.
        limit: the name of the limit in messages.
    """
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is a global variable; `check_size` checks ours, also before decoding.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except UnreadableImage:
        raise
    except deep_images.UnusablePixels as error:
        raise UnreadableImage(str(error)) from None
    except Image.DecompressionBombError as error:  # Pillow's own limit, above the largest data.max_pixels
        size = re.search(r"\d+", str(error))
        pixels = f"{int(size.group()):,} pixels" if size else "too many pixels"
        raise UnreadableImage(f"{pixels}, more than {limit} = {max_pixels:,}") from None
    except Image.UnidentifiedImageError:
        if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
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
        content: the file's content.
        max_pixels: the most pixels (width times height) that are decoded.
        allowed: Pillow's names of the accepted formats; None for all `formats`.
        limit: the name of `max_pixels` in messages.

    Raises:
        UnreadableImage: it cannot be decoded; the message says why, without the image's name.
    """
    if not content:
        raise UnreadableImage("the file is empty")
    with decoding_errors(max_pixels, content, limit):
        image = Image.open(io.BytesIO(content), formats=formats() if allowed is None else allowed)
        check_size(image.width, image.height, max_pixels, limit)
        deep = deep_images.inspect(image, content)
        image.load()
        # The picture in an ICO file may be larger than the file's header says.
        check_size(image.width, image.height, max_pixels, limit)
        upright = ImageOps.exif_transpose(image)
        deep_images.attach(upright, deep)
        return upright


def check_size(width: int, height: int, max_pixels: int, limit: str = MAX_PIXELS) -> None:
    """Require that an image has at most `max_pixels` pixels.

    Args:
        limit: the name of `max_pixels` in messages.

    Raises:
        UnreadableImage: it has more.
    """
    if width * height > max_pixels:
        raise UnreadableImage(f"{width} x {height} = {width * height:,} pixels, more than {limit} = {max_pixels:,}")


def size_of(path: Path) -> tuple[int, int] | None:
    """(width, height) of the upright image in a file, from its header; None if the header cannot be read.

    It does not say why: `decode` raises the error when the image is used.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return None
        with decoding_errors(), Image.open(path, formats=formats()) as image:
            return upright_size(image)
    except UnreadableImage:
        return None


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an image that is opened and not loaded, as it will be when it stands upright."""
    width, height = image.size
    # Without EXIF data before the pixels, Pillow would load the whole PNG to look for some after them.
    has_exif = image.format != "PNG" or "exif" in image.info
    is_turned = has_exif and image.getexif().get(ExifTags.Base.Orientation, 1) in _SWAPS_SIDES
    return (height, width) if is_turned else (width, height)


def deep_kind_of(content: bytes, max_pixels: int) -> Kind | None:
    """The type of the values in an image file, from its header; None for 8 bits, or if the header cannot be read.

    Args:
        content: the file's content.
        max_pixels: the limit that messages name.
    """
    if content.startswith(_PNG_START):
        if content[_PNG_DEPTH_AT : _PNG_DEPTH_AT + 1] != b"\x10":
            return None
    elif not content or content.startswith(_FIRST_BYTES_OF_8_BIT_FORMATS):
        return None
    try:
        with decoding_errors(max_pixels):
            return deep_images.deep_kind_of(Image.open(io.BytesIO(content), formats=formats()))
    except UnreadableImage:  # `decode` raises the error when the image is used
        return None


def extent(image: Image.Image) -> Extent | None:
    """The least and the greatest value of a decoded image of more than 8 bits; None for an image of 8 bits.

    Raises:
        UnreadableImage: it has pixels that are not finite numbers.
    """
    with decoding_errors():
        return deep_images.extent(image)


def crop(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """A part of a decoded image; `box` is (left, upper, right, lower) in pixels."""
    with decoding_errors():
        return deep_images.crop(image, box)


def flatten(
    image: Image.Image, settings: DataSettings, decided: Mapping[Kind, Range] = MappingProxyType({})
) -> Image.Image:
    """The image in mode "L" or "RGB", as `settings.channels` says, with transparent pixels on the background colour.

    Args:
        decided: the dataset's range of each kind of image of more than 8 bits, as in `range_for_image`.

    Raises:
        UnreadableImage: it cannot be converted.
    """
    mode = "L" if settings.channels == 1 else "RGB"
    if deep_images.has_more_than_eight_bits(image):
        with decoding_errors():
            image = deep_images.to_eight_bit_image(image, settings, decided)
    try:
        if image.has_transparency_data:
            canvas = Image.new("RGBA", image.size, (*settings.background_rgb, 255))
            image = Image.alpha_composite(canvas, image.convert("RGBA"))
        return image if image.mode == mode else image.convert(mode)
    except (ValueError, OSError) as error:
        raise UnreadableImage(f"cannot be converted from {image.mode} to {mode}: {error}") from None


@functools.cache
def _background(mode: str, rgb: tuple[int, int, int]) -> np.ndarray:
    """The colour of the background, uint8: () in mode "L", (3,) in mode "RGB"."""
    return np.asarray(Image.new("RGB", (1, 1), rgb).convert(mode))[0, 0]


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


def pad(image: Image.Image, settings: DataSettings) -> np.ndarray:
    """The pixels of a scaled image in the middle of a square with side `settings.image_size` of the background colour.

    Returns:
        uint8, (S, S) or (S, S, 3).
    """
    size, (width, height) = settings.image_size, image.size
    shape = (height, width) if image.mode == "L" else (height, width, 3)
    pixels = np.frombuffer(image.tobytes(), np.uint8).reshape(shape)  # np.asarray(image) takes half as long again
    if (height, width) == (size, size):
        return pixels
    top, left = (size - height) // 2, (size - width) // 2
    square = np.full((size, size, *pixels.shape[2:]), _background(image.mode, settings.background_rgb))
    square[top : top + height, left : left + width] = pixels
    return square


def fit(image: Image.Image, settings: DataSettings) -> np.ndarray:
    """The pixels of a flattened image, made square with side `settings.image_size`: `scale`, then `pad`."""
    return pad(scale(image, settings), settings)


def fit_frames(image: Image.Image, settings: DataSettings, num_frames: int) -> np.ndarray:
    """The pixels of a flattened image that holds frames from top to bottom, each made square as `fit` does.

    Args:
        num_frames: T; 1 for an image.

    Returns:
        uint8, (T S, S) or (T S, S, 3), S = `settings.image_size`.

    Raises:
        UnreadableImage: its height is no multiple of T.
    """
    width, height = image.size
    if height % num_frames:
        raise UnreadableImage(f"{width} x {height} pixels; expected {num_frames} frames, one below another")
    side = height // num_frames
    parts = [image.crop((0, top, width, top + side)) for top in range(0, height, side)] if num_frames > 1 else [image]
    return np.concatenate([fit(part, settings) for part in parts])


def fit_hole(image: Image.Image, settings: DataSettings) -> np.ndarray:
    """Where a decoded image is transparent, made square as `fit` makes the image: uint8, (S, S), 255 there, else 0.

    Raises:
        UnreadableImage: nothing is transparent, or everything is.
    """
    with decoding_errors():
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if alpha is None:
        raise UnreadableImage("no pixel is transparent; expected transparent pixels where the image is missing")
    grey = settings.model_copy(update={"channels": 1, "background": "black"})
    is_missing = fit(ImageOps.invert(alpha), grey) >= _HALF
    if is_missing.all() or not is_missing.any():
        which = "all of the image is" if is_missing.all() else "nothing of it is"
        raise UnreadableImage(f"{which} transparent; expected transparent pixels where the image is missing")
    return is_missing.astype(np.uint8) * np.uint8(255)


def blank_kind(image: Image.Image) -> str | None:
    """ "nearly black", "nearly white" or "flat" if a person would see nothing in a flattened image; else None."""
    extrema: Any = image.getextrema()
    bands = extrema if image.mode == "RGB" else (extrema,)
    lows, highs = zip(*bands, strict=True)
    if max(highs) <= DARKEST:
        return "nearly black"
    if min(lows) >= BRIGHTEST:
        return "nearly white"
    return "flat" if all(high - low <= FLATTEST for low, high in bands) else None


def encode_png(pixels: np.ndarray) -> bytes:
    """The content of a PNG file without metadata, from uint8 pixels, (H, W) or (H, W, 3)."""
    return bytes(imagecodecs.png_encode(pixels, level=_PNG_LEVEL, filter=imagecodecs.PNG.FILTER.FAST))


def decode_png_CHW(content: bytes, height: int, width: int, channels: int) -> np.ndarray:
    """The pixels of a PNG from a shard, uint8, (C, H, W).

    Raises:
        UnreadableImage: it is not a PNG of 8 bits with that size and number of channels.
    """
    expected = (width, height, 8, _COLOUR_TYPES[channels])
    # The header is checked first, so that nothing larger than expected is decoded.
    if not (content.startswith(_PNG_START) and len(content) > _PNG_HEADER_BYTES):
        raise UnreadableImage("not a valid PNG: it does not begin like a PNG")
    found = struct.unpack_from(">IIBB", content, len(_PNG_START))
    if found != expected:
        raise UnreadableImage(f"a PNG of {_png_format(*found)}; expected {_png_format(*expected)}")
    try:
        pixels: np.ndarray = imagecodecs.png_decode(content)
    except (imagecodecs.PngError, ValueError) as error:
        raise UnreadableImage(f"not a valid PNG: {error}") from None
    pixels_HWC = pixels.reshape(height, width, -1)
    if pixels_HWC.shape[2] != channels:
        raise UnreadableImage("a PNG with a transparent colour; expected none")
    return np.moveaxis(pixels_HWC, -1, 0)


def _png_format(width: int, height: int, depth: int, colour_type: int) -> str:
    """A description for error messages; colour types are those of the PNG specification, section 11.2.2."""
    return f"{width} x {height} pixels, {depth} bits, colour type {colour_type}"
