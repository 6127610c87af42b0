"""What an image file is before anything is done to it, from its header."""

from __future__ import annotations

import io
from typing import NamedTuple

from PIL import Image

from . import deep as deep_images
from .decoding import UnreadableImage, decoding_errors, formats, upright_size
from .value_range import Kind

_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "F")
_WIDE: tuple[Kind, ...] = ("32-bit", "signed 32-bit", "floating-point")


class Facts(NamedTuple):
    """What an image file says of itself.

    Attributes:
        format: Pillow's name of its format; `raw` for one without a header.
        mode: Pillow's name of how its pixels are stored.
        bits: of a value.
        width, height: of the upright image, in pixels.
        has_transparency: whether it says so, even if no pixel is transparent.
    """

    format: str
    mode: str
    bits: int
    width: int
    height: int
    has_transparency: bool = False

    @property
    def is_grey(self) -> bool:
        return self.mode in _GREY_MODES

    @property
    def kind(self) -> str:
        """Format, mode and bits, for people."""
        return f"{self.format}, {self.mode}, {self.bits} bit"


def facts_of(content: bytes) -> Facts | None:
    """What an image file says of itself; None where its header cannot be read, which `decode` reports."""
    try:
        with decoding_errors(), Image.open(io.BytesIO(content), formats=formats()) as image:
            bits = 1 if image.mode == "1" else _bits(deep_images.deep_kind_of(image))
            return Facts(image.format or "unknown", image.mode, bits, *upright_size(image), image.has_transparency_data)
    except UnreadableImage:
        return None


def _bits(kind: Kind | None) -> int:
    if kind is None:
        return 8
    return 32 if kind in _WIDE else 16
