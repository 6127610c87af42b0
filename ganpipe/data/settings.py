"""The section `data:` of params.yaml: which images, in which form."""

from __future__ import annotations

import math
from typing import Literal

from PIL import ImageColor
from pydantic import Field, field_validator

from ..fields import MAX_WORDS
from ..section import Section, nearest
from .source_names import names


class DataSettings(Section):
    """Which images, in which form."""

    source: str = "mnist"
    """Where the images come from: the name of a file in ganpipe/data/sources/. Its settings are sources.<name>."""
    image_size: int = Field(32, ge=4, le=4096)
    """Height and width of the images after ingest, in pixels."""
    channels: Literal[1, 3] = 1
    """1 for grey, 3 for colour (RGB)."""
    shape: Literal["crop", "pad"] = "crop"
    """How an image that is not square becomes square: `crop` takes the centre, `pad` adds background."""
    enlarge: Literal["pad", "resize"] = "pad"
    """What happens to an image smaller than image_size: `pad` keeps its pixels and adds background around them (MNIST:
    28 to 32), `resize` scales it up (Lanczos)."""
    background: str = "black"
    """Colour behind transparent pixels and padding: a CSS name or "#rrggbb"."""
    value_range: Literal["auto", "full"] | tuple[float, float] = "auto"
    """Which value becomes black and which white, for images of 16 or 32 bits or of floating-point numbers (8 bits have
    one range). `auto` goes by all such images of the dataset: whole numbers are taken as 8, 10, 12, 14 or 16 bits,
    floating-point ones as 0 to 1, -1 to 1 or 0 to 255, whichever first holds them all, else from their least to their
    greatest value; ingest says what it took. `full` is the range of the type (0 to 65535, 0 to 1). `[low, high]`
    says it for all; what lies outside becomes black or white."""
    limit: int | None = Field(None, ge=1)
    """Take at most so many images: those whose names have the smallest SHA-256, so that the choice mixes the classes,
    reads nothing else, and a larger limit adds to a smaller one's images. Null takes all."""
    validation_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the images kept from training. An image belongs to the validation split by the hash of its content, so
    adding images moves none, copies of an image stay together, and the share is met only approximately."""
    unreadable: Literal["error", "skip"] = "error"
    """What an image that cannot be decoded does: `error` stops the ingest, `skip` leaves it out and lists its name in
    the manifest."""
    max_pixels: int = Field(2**26, ge=1, le=2**27)
    """Images with more pixels than this (width times height, read from the header before decoding) are refused."""
    max_words: int = Field(64, ge=1, le=MAX_WORDS)
    """Words that a text may have; one with more stops the ingest, with its name."""
    vocabulary_size: int = Field(10_000, ge=1, le=1_000_000)
    """Words that get a number of their own: the most frequent of the training texts. All others share one."""
    samples_per_shard: int = Field(5000, ge=1, le=1_000_000)
    """Images in a shard (tar file)."""

    @field_validator("source")
    @classmethod
    def _source_exists(cls, value: str) -> str:
        if value not in names():
            raise ValueError(f"there is no source of that name; {nearest(value, names())}")
        return value

    @field_validator("value_range")
    @classmethod
    def _range_has_a_length(cls, value: str | tuple[float, float]) -> str | tuple[float, float]:
        if isinstance(value, tuple) and not (all(map(math.isfinite, value)) and value[0] < value[1]):
            raise ValueError("expected [low, high] with low below high")
        return value

    @field_validator("background")
    @classmethod
    def _background_is_a_colour(cls, value: str) -> str:
        try:
            colour = ImageColor.getrgb(value)
        except ValueError:
            raise ValueError('expected a colour such as "white" or "#7f7f7f"') from None
        if len(colour) == 4 and colour[3] != 255:
            raise ValueError('expected a colour that is not transparent, such as "#7f7f7f"')
        return value

    @property
    def background_rgb(self) -> tuple[int, int, int]:
        """The background as red, green and blue, each in [0, 255]."""
        red, green, blue, *_ = ImageColor.getrgb(self.background)
        return red, green, blue
