"""Decoding and fitting: every kind of good image comes out right, every bad one is refused with its reason."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from ganpipe.data.images.decoding import (
    UnreadableImage,
    blank_kind,
    decode,
    decode_png_CHW,
    deep_kind_of,
    encode_png,
    fit,
    flatten,
)
from ganpipe.data.settings import DataSettings

MANY = 2**26


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def png_header_only(width: int, height: int) -> bytes:
    """A tiny PNG that claims to be large: what a decompression bomb looks like before it is decoded."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def prepared(content: bytes, **settings: object) -> np.ndarray:
    made = DataSettings.model_validate({"channels": 3, "image_size": 8, **settings})
    return np.asarray(fit(flatten(decode(content, MANY), made), made))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "ICO", "TGA"])
def test_formats(form: str) -> None:
    image = Image.new("RGB", (16, 16), (200, 30, 60))
    pixels = prepared(saved(image, form), image_size=8)
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels.astype(int) - (200, 30, 60)).max() <= 6  # JPEG, WebP and GIF lose a little


def test_sixteen_bits_scale_over_the_full_range() -> None:
    wide = np.array([[0, 128, 257, 32768], [300, 1000, 65278, 65535]], np.uint16)
    for form in ("PNG", "TIFF"):
        grey = flatten(decode(saved(Image.fromarray(wide), form), MANY), DataSettings(channels=1))
        np.testing.assert_array_equal(np.asarray(grey), np.round(wide / 257).astype(np.uint8))


def test_cmyk_jpeg_is_converted() -> None:
    content = saved(Image.new("RGB", (16, 16), (220, 20, 20)).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(content)).mode == "CMYK"
    pixels = prepared(content).astype(int)
    assert np.abs(pixels - (220, 20, 20)).max() <= 8


def test_palette_and_bilevel() -> None:
    palette = Image.new("RGB", (8, 8), (10, 200, 30)).quantize(4)
    assert np.abs(prepared(saved(palette, "PNG")).astype(int) - (10, 200, 30)).max() <= 2
    bilevel = Image.new("1", (8, 8), 1)
    assert (prepared(saved(bilevel, "PNG")) == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_show_the_background(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (0, 0, 4, 8))
    content = saved(image.quantize(4) if mode == "PA" else image.convert(mode), "PNG")
    pixels = prepared(content, background="#0000ff")
    np.testing.assert_array_equal(pixels[:, :4], np.full((8, 4, 3), 255))
    np.testing.assert_array_equal(pixels[:, 4:], np.broadcast_to([0, 0, 255], (8, 4, 3)))


def test_half_transparency_is_composed() -> None:
    pixels = prepared(saved(Image.new("RGBA", (8, 8), (255, 0, 0, 128)), "PNG"), background="white")
    assert np.abs(pixels[0, 0].astype(int) - (255, 127, 127)).max() <= 1


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (8, 8), "black")
    image.paste((255, 255, 255), (0, 0, 8, 4))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 3  # rotated by 180 degrees
    upright = prepared(saved(image, "PNG", exif=exif))
    assert upright[0].max() == 0
    assert upright[-1].min() == 255


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    pixels = prepared(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert pixels[0, 0, 0] > 200
    assert pixels[0, 0, 2] < 50


def test_small_images_keep_their_pixels_on_the_background() -> None:
    digit = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    pixels = prepared(saved(Image.fromarray(digit), "PNG"), channels=1, image_size=32, background="#050505")
    np.testing.assert_array_equal(pixels[2:30, 2:30], digit)
    border = np.ones((32, 32), bool)
    border[2:30, 2:30] = False
    assert (pixels[border] == 5).all()


def test_small_images_can_be_enlarged() -> None:
    image = Image.new("L", (7, 7), 90)
    pixels = prepared(saved(image, "PNG"), channels=1, image_size=32, enlarge="resize")
    assert (pixels == 90).all()


def half_and_half(size: tuple[int, int]) -> bytes:
    """Red in the middle square, blue outside."""
    image = Image.new("RGB", size, "blue")
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    image.paste((255, 0, 0), (left, top, left + side, top + side))
    return saved(image, "PNG")


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (33, 32), (300, 32)])
def test_crop_takes_the_centre(size: tuple[int, int]) -> None:
    pixels = prepared(half_and_half(size), image_size=16)
    np.testing.assert_array_equal(pixels, np.broadcast_to([255, 0, 0], (16, 16, 3)))


def test_pad_shows_the_whole_image() -> None:
    pixels = prepared(saved(Image.new("RGB", (64, 32), "red"), "PNG"), image_size=16, shape="pad", background="white")
    np.testing.assert_array_equal(pixels[4:12], np.broadcast_to([255, 0, 0], (8, 16, 3)))
    np.testing.assert_array_equal(pixels[:4], np.full((4, 16, 3), 255))
    np.testing.assert_array_equal(pixels[12:], np.full((4, 16, 3), 255))


@pytest.mark.parametrize("size", [(1000, 1), (1, 1000), (1, 1), (15, 17)])
@pytest.mark.parametrize("shape", ["crop", "pad"])
@pytest.mark.parametrize("enlarge", ["pad", "resize"])
def test_any_shape_becomes_the_size(size: tuple[int, int], shape: str, enlarge: str) -> None:
    content = saved(Image.new("L", size, 128), "PNG")
    assert prepared(content, image_size=16, shape=shape, enlarge=enlarge).shape == (16, 16, 3)


def truncated_png() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), "PNG")
    return content[: len(content) // 2]


def truncated_jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), "JPEG")
    return content[: len(content) // 2]


def flipped_png() -> bytes:
    content = bytearray(saved(Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)), "PNG"))
    content[60] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"a text file\n" * 20, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),  # would run Ghostscript
        (truncated_png(), "truncated"),
        (truncated_jpeg(), "truncated"),
        (flipped_png(), "cannot be decoded"),
        (png_header_only(30_000, 30_000), "900,000,000 pixels, more than data.max_pixels = 67,108,864"),
        (png_header_only(10_000, 10_000), "10000 x 10000 = 100,000,000 pixels, more than data.max_pixels = 67,108,864"),
    ],
    ids=["empty", "text", "postscript", "truncated-png", "truncated-jpeg", "flipped", "bomb", "large"],
)
def test_unreadable(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        decode(content, MANY)


def test_the_pixel_limit_is_checked_before_decoding() -> None:
    # 90,000,000 pixels follow the header only by name; decoding them would say "truncated".
    with pytest.raises(UnreadableImage, match=r"30000 x 3000 = 90,000,000 pixels"):
        decode(png_header_only(30_000, 3_000), MANY)
    decode(saved(Image.new("L", (100, 100)), "PNG"), 10_000)
    with pytest.raises(UnreadableImage, match="more than"):
        decode(saved(Image.new("L", (100, 101)), "PNG"), 10_000)


def test_a_long_thin_image_is_no_bomb() -> None:
    assert prepared(saved(Image.new("RGB", (30_000, 4), "red"), "PNG")).shape == (8, 8, 3)


def grey_of(content: bytes, **settings: object) -> list[int]:
    made = DataSettings.model_validate({"channels": 1, **settings})
    return np.asarray(flatten(decode(content, MANY), made)).reshape(-1).tolist()


def tiff(values: np.ndarray) -> bytes:
    return bytes(imagecodecs.tiff_encode(values))


def wide_png(values: np.ndarray, transparent: int | None = None, colour_type: int = 0) -> bytes:
    """A 16-bit PNG, with a transparent value in each channel (tRNS) if asked for."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)
    places = 3 if colour_type == 2 else 1
    colour = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent) * places)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    body = colour + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("dtype", "values", "auto", "full", "chosen"),
    [
        # auto: 12 bits; chosen: 1000 to 3000
        (np.uint16, [0, 1000, 2000, 4000], [0, 62, 125, 249], [0, 4, 8, 16], [0, 0, 128, 255]),
        (np.uint16, [0, 1000, 2000, 65535], [0, 4, 8, 255], [0, 4, 8, 255], [0, 0, 128, 255]),
        # signed: from the least value to the greatest
        (np.int16, [-1000, 1000, 2000, 3000], [0, 128, 191, 255], [124, 131, 135, 139], [0, 0, 128, 255]),
        (np.int32, [0, 1000, 2000, 70000], [0, 4, 7, 255], [128, 128, 128, 128], [0, 0, 128, 255]),
        (np.uint32, [0, 2**31, 2**31, 2**32 - 1], [0, 128, 128, 255], [0, 128, 128, 255], [0, 255, 255, 255]),
        (np.float32, [0, 0.25, 0.5, 1], [0, 64, 128, 255], [0, 64, 128, 255], [0, 0, 0, 0]),
        (np.float32, [-1, 0, 0.5, 1], [0, 128, 191, 255], [0, 0, 128, 255], [0, 0, 0, 0]),
        (np.float32, [0, 1000, 2000, 5000], [0, 51, 102, 255], [0, 255, 255, 255], [0, 0, 128, 255]),
    ],
)
def test_ranges_of_more_than_eight_bits(
    dtype: type, values: list[float], auto: list[int], full: list[int], chosen: list[int]
) -> None:
    content = tiff(np.array([values], dtype))
    assert grey_of(content) == auto
    assert grey_of(content, value_range="full") == full
    assert grey_of(content, value_range=[1000, 3000]) == chosen


def test_a_range_does_not_touch_eight_bits() -> None:
    content = saved(Image.fromarray(np.array([[0, 7, 100, 255]], np.uint8)), "PNG")
    assert grey_of(content, value_range=[10, 20]) == [0, 7, 100, 255]
    assert deep_kind_of(content, MANY) is None


def test_a_pgm_of_twelve_bits_says_so_itself() -> None:
    content = b"P5 4 1 4095\n" + np.array([0, 1000, 2000, 4095], ">u2").tobytes()
    assert grey_of(content) == [0, 62, 125, 255]


def test_a_text_in_the_file_is_no_kind_of_image() -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("ganpipe_kind", "floating-point")
    assert grey_of(saved(Image.fromarray(np.array([[3, 200]], np.uint8)), "PNG", pnginfo=text)) == [3, 200]


def test_pixels_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(UnreadableImage, match="not finite numbers"):
        grey_of(tiff(np.array([[0.5, np.nan]], np.float32)))


def test_a_transparent_value_of_sixteen_bits_shows_the_background() -> None:
    values = np.array([[500, 65535], [0, 501]], np.uint16)
    assert grey_of(wide_png(values, transparent=500), background="white") == [255, 255, 0, 2]
    assert grey_of(wide_png(values), background="white") == [2, 255, 0, 2]
    pixels = prepared(wide_png(np.full((8, 8), 500, np.uint16), transparent=500), background="#0000ff")
    np.testing.assert_array_equal(pixels, np.broadcast_to([0, 0, 255], (8, 8, 3)))


def test_a_transparent_value_does_not_decide_the_range() -> None:
    values = np.array([[0, 2000], [4000, 65535]], np.uint16)
    assert grey_of(wide_png(values, transparent=65535)) == [0, 125, 249, 0]


COLOUR = np.random.default_rng(5).integers(0, 4096, (8, 8, 3), dtype=np.uint16)


@pytest.mark.parametrize("form", ["png", "tiff", "deflate", "separate"])
def test_twelve_bit_colour_in_sixteen_bits(form: str) -> None:
    options = {"tiff": {}, "deflate": {"compression": "deflate"}, "separate": {"planarconfig": "separate"}}
    values = np.ascontiguousarray(np.moveaxis(COLOUR, -1, 0)) if form == "separate" else COLOUR
    content = (
        imagecodecs.png_encode(values)
        if form == "png"
        else imagecodecs.tiff_encode(values, photometric="rgb", **options[form])
    )
    np.testing.assert_array_equal(prepared(content), np.round(COLOUR / 4095 * 255))
    assert deep_kind_of(content, MANY) == "16-bit colour"
    clear = np.maximum(COLOUR, 1000) - 1000
    np.testing.assert_array_equal(prepared(content, value_range=[1000, 5095]), np.round(clear / 4095 * 255))
    if form != "separate":  # as it was before there were ranges
        np.testing.assert_array_equal(prepared(content, value_range="full"), COLOUR >> 8)


def test_twelve_bit_colour_with_opacity() -> None:
    opaque = np.where(np.arange(64).reshape(8, 8, 1) % 2, 65535, 0).astype(np.uint16)
    pixels = prepared(imagecodecs.png_encode(np.concatenate([COLOUR, opaque], -1)), background="#0000ff")
    shown = opaque[:, :, 0] > 0
    np.testing.assert_array_equal(pixels[shown], np.round(COLOUR / 4095 * 255)[shown])
    np.testing.assert_array_equal(pixels[~shown], np.broadcast_to([0, 0, 255], (32, 3)))


def test_a_transparent_colour_of_sixteen_bits_is_that_colour_only() -> None:
    rows = np.array([[[257, 257, 257], [258, 257, 257], [1, 1, 1], [40000, 40000, 40000]]], np.uint16)
    content = wide_png(rows, transparent=257, colour_type=2)
    assert grey_of(content, background="white") == [255, 1, 0, 156]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_colour_of_sixteen_bits_is_turned_as_any_other(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    narrow = Image.fromarray((COLOUR[:5] >> 4).astype(np.uint8))
    expected = decode(saved(narrow, "PNG", exif=exif), MANY)
    content = imagecodecs.png_encode(COLOUR[:5] >> 4 << 8)
    # eXIf, as Pillow wrote it, in front of the end.
    other = saved(narrow, "PNG", exif=exif)
    start = other.index(b"eXIf") - 4
    length = struct.unpack(">I", other[start : start + 4])[0] + 12
    content = content[:-12] + other[start : start + length] + content[-12:]
    made = flatten(decode(content, MANY), DataSettings(channels=3, value_range=[0, 65280]))
    np.testing.assert_array_equal(np.asarray(made), np.asarray(expected))


@pytest.mark.parametrize(
    ("low", "high", "what"),
    [(0, 16, "nearly black"), (240, 255, "nearly white"), (100, 104, "flat"), (0, 17, None), (100, 105, None)],
)
def test_what_shows_nothing(low: int, high: int, what: str | None) -> None:
    grey = Image.fromarray(np.array([[low, high], [low, low]], np.uint8))
    assert blank_kind(grey) == blank_kind(grey.convert("RGB")) == what


@pytest.mark.parametrize("channels", [1, 3])
def test_png_members_come_back_exactly(channels: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")
    back_CHW = decode_png_CHW(encode_png(np.asarray(image)), 16, 16, channels)
    assert back_CHW.shape == (channels, 16, 16)
    np.testing.assert_array_equal(back_CHW.transpose(1, 2, 0).squeeze(), np.asarray(image))


@pytest.mark.parametrize(
    "make", [lambda: encode_png(Image.new("L", (17, 16))), lambda: encode_png(Image.new("RGB", (16, 16))), lambda: b"x"]
)
def test_png_members_of_another_form_are_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(UnreadableImage):
        decode_png_CHW(make(), 16, 16, 1)
