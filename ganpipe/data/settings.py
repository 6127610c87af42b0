"""The section `data:` of params.yaml: which images are used, and in which form."""

from __future__ import annotations

import math
from typing import Literal

from PIL import ImageColor
from pydantic import Field, field_validator

from ..fields import MAX_WORDS
from ..section import Section, nearest
from .source_names import names


class DataSettings(Section):
    """Which images are used, and in which form."""

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
    """Which value becomes black and which becomes white, for images of 16 or 32 bits or of floating-point numbers
    (images of 8 bits always use 0 to 255). `auto` chooses one range for all such images of the dataset, the first that
    holds all their values: for whole numbers that of 8, 10, 12, 14 or 16 bits, for floating-point numbers 0 to 1,
    -1 to 1 or 0 to 255; if none does, from the least value to the greatest. Ingest prints its choice. `full` is the
    range of the type (0 to 65535, 0 to 1). `[low, high]` sets the range of all images; values outside it become black
    or white."""
    limit: int | None = Field(None, ge=1)
    """The most images to take: those whose names have the smallest SHA-256. This choice mixes the classes and reads no
    other images, and a larger limit keeps the images of a smaller one. Null takes all."""
    validation_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the images that are kept for validation. The hash of an image's content decides its split: adding images
    does not move others, copies of an image are in the same split, and the share is met only approximately."""
    unreadable: Literal["error", "skip"] = "error"
    """What happens if an image cannot be decoded: `error` stops the ingest, `skip` leaves the image out and lists its
    name in the manifest."""
    max_pixels: int = Field(2**26, ge=1, le=2**27)
    """Images with more pixels than this (width times height, read from the header before decoding) are refused."""
    max_words: int = Field(64, ge=1, le=MAX_WORDS)
    """The most words that a text may have. A longer text stops the ingest, and the error names its image."""
    vocabulary_size: int = Field(10_000, ge=1, le=1_000_000)
    """The most words in the vocabulary: the most frequent words of the training texts. All other words share one token
    number."""
    samples_per_shard: int = Field(5000, ge=1, le=1_000_000)
    """The most images in a shard (tar file)."""
    convert_on: Literal["host", "cluster"] = "host"
    """Where images are read, decoded and made alike: on this host's cores, or as tasks on all hosts of RAY_ADDRESS,
    which have to reach the source's images (URLs, or folders that all hosts share). Shards are the same."""
    store: str | None = None
    """Where ingest puts the shards, a URL that all hosts reach (s3://bucket/folder, file:///folder); artifacts/shards
    then holds their manifest alone, and hosts fetch shards as data.read says. null: artifacts/shards, which DVC
    tracks, file by file."""
    read: Literal["auto", "cache", "stream"] = "auto"
    """How trainings and evaluations read the shards: `cache` decodes them into this host's cache once, `stream` reads
    them in place, or fetches them as they are needed, and decodes each image when it is used. auto: the cache where
    the decoded split takes no more than GANPIPE_CACHE_BYTES, by default 80 % of the free disk. What is made does not
    depend on it."""

    @field_validator("store")
    @classmethod
    def _store_is_a_url(cls, value: str | None) -> str | None:
        if value is not None and "://" not in value:
            raise ValueError("expected a URL that all hosts reach, such as s3://bucket/folder")
        return value

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
