"""What a sample is made of: typed fields. All that differs between the kinds of fields is defined here: the name of a
field's file in a shard, shape and type of its array, its description for people, how random values are drawn.

Legend: N samples, C channels, H height, W width, T frames, L words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError

from .section import Section
from .words import token_numbers, tokenise, words_of

if TYPE_CHECKING:
    from torch import Tensor

MAX_CLASSES = 100_000
MAX_SIDE = 4096
MAX_WORDS = 1000
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,49}$"  # a field's name is also the name of a file in the decoded cache


class Draws(Protocol):
    """A source of random numbers for N rows, such as those of `gans/draws.py`."""

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), (N, *shape)."""

    def integers(self, high: int) -> Tensor:
        """Whole numbers in [0, high), (N,)."""


class _Kind(Section, ABC):
    """What all kinds have in common."""

    main_name: ClassVar[str] = ""
    """The files of a field of this name do not repeat the name: `.png` for the field `image`, but `.source.png` for
    the field `source`."""
    suffix: ClassVar[str] = ""
    """The extension of the field's files in a shard, without its first dot."""
    rank: ClassVar[int] = 0
    """Position of the field's file among the files of a sample in a shard; the smallest comes first."""
    is_picture: ClassVar[bool] = False
    """Whether the values are pixels."""

    def member(self, name: str) -> str:
        """The extension of the files of the field `name` in a shard, without its first dot: cls, png, source.png, …"""
        return self.suffix if name == self.main_name else f"{name}.{self.suffix}"

    @property
    @abstractmethod
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one sample's array."""

    @property
    def dtype(self) -> type[Any]:
        """Type of one sample's array: uint8 for pictures, else int64."""
        return np.uint8 if self.is_picture else np.int64

    @property
    @abstractmethod
    def text(self) -> str:
        """A description for people, such as "10 classes"."""

    def parse(self, text: str, names: Sequence[str]) -> Any:
        """A sample's value, a number or an array of `row_shape`, from a text in a shard or in a request.

        Args:
            names: the names of the classes, or the words of the vocabulary, by number.

        Raises:
            ValueError: the text is not such a value; the message says what was expected.
        """
        raise ValueError(f"a field of the kind {type(self).__name__.lower()} cannot be given as a text")

    def drawn(self, draws: Draws) -> Tensor | None:
        """Random values for N rows, (N,), used where the caller gives no values; None if the kind cannot be drawn."""
        return None

    def bounds(self) -> tuple[float, float] | None:
        """The least and the greatest number that a row may hold, both included; None for pictures."""
        return None


class Picture(_Kind):
    """An image, uint8, (C, H, W); as a tensor in [-1, 1]."""

    kind: Literal["image"] = "image"
    size: int = Field(ge=1, le=MAX_SIDE)
    """Height and width in pixels."""
    channels: Literal[1, 3]
    """1 for grey, 3 for RGB."""
    main_name = "image"
    suffix = "png"
    rank = 1
    is_picture = True

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.channels, self.size, self.size

    @property
    def file_size(self) -> tuple[int, int]:
        """(height, width) of a row as one image, in pixels: as in a shard, a request or an answer."""
        return self.size, self.size

    @property
    def text(self) -> str:
        return f"{self.size} px, {_channels(self.channels)}"


class Frames(_Kind):
    """A sequence of images in time, uint8, (T, C, H, W). In a shard they are stacked from top to bottom in one PNG."""

    kind: Literal["frames"] = "frames"
    num_frames: int = Field(ge=1, le=1000)
    """Number of frames, T."""
    size: int = Field(ge=1, le=MAX_SIDE)
    """Height and width of a frame in pixels."""
    channels: Literal[1, 3]
    """1 for grey, 3 for RGB."""
    main_name = "frames"
    suffix = "frames.png"
    rank = 1
    is_picture = True

    def member(self, name: str) -> str:
        return self.suffix if name == self.main_name else f"{name}.png"

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.num_frames, self.channels, self.size, self.size

    @property
    def file_size(self) -> tuple[int, int]:
        """(height, width) of a row as one image, in pixels: its frames from top to bottom."""
        return self.num_frames * self.size, self.size

    @property
    def text(self) -> str:
        return f"{self.num_frames} frames of {self.size} px, {_channels(self.channels)}"


class Mask(_Kind):
    """Which part of an image is missing, uint8, (1, H, W): white where it is, black where the image is known. No
    dataset has such a field."""

    kind: Literal["mask"] = "mask"
    size: int = Field(ge=1, le=MAX_SIDE)
    """Height and width in pixels."""
    channels: Literal[1] = 1
    suffix = "png"
    rank = 1
    is_picture = True

    @property
    def row_shape(self) -> tuple[int, ...]:
        return 1, self.size, self.size

    @property
    def file_size(self) -> tuple[int, int]:
        """(height, width) of a row as an image, in pixels."""
        return self.size, self.size

    @property
    def text(self) -> str:
        return f"a mask of {self.size} px"


class Label(_Kind):
    """The number of a class."""

    kind: Literal["label"] = "label"
    num_classes: int = Field(ge=1, le=MAX_CLASSES)
    """Classes are numbered from 0."""
    main_name = "label"
    suffix = "cls"

    @property
    def row_shape(self) -> tuple[int, ...]:
        return ()

    @property
    def text(self) -> str:
        return {0: "no classes", 1: "1 class"}.get(self.num_classes, f"{self.num_classes} classes")

    def parse(self, text: str, names: Sequence[str]) -> int:
        text = text.strip()
        if not (text.isdecimal() and len(text) < 20 and int(text) < self.num_classes):
            raise ValueError(f"is {text[:20]!r}; expected a number below {self.num_classes}")
        return int(text)

    def drawn(self, draws: Draws) -> Tensor:
        return draws.integers(self.num_classes)

    def bounds(self) -> tuple[float, float]:
        return 0, self.num_classes - 1


class Tokens(_Kind):
    """A text as token numbers, int64, (L,): 0 is padding, 1 is a word that the vocabulary lacks."""

    kind: Literal["tokens"] = "tokens"
    length: int = Field(ge=0, le=MAX_WORDS)
    """Number of tokens, L. 0 if no vocabulary was made, as in shards of format 1: such texts are stored but not
    loaded."""
    num_words: int = Field(ge=0)
    """How many different token numbers may occur, padding and unknown word included: the rows of an embedding."""
    main_name = "text"
    suffix = "txt"
    rank = 2

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def text(self) -> str:
        return f"at most {self.length} words, of {self.num_words} known ones"

    def parse(self, text: str, names: Sequence[str]) -> np.ndarray:
        if not (found := words_of(text)):
            raise ValueError(f"is {text[:40]!r}; expected at least one word")
        if len(found) > self.length:
            raise ValueError(f"has {len(found)} words; expected at most {self.length}")
        return np.array(tokenise(text, _token_numbers(tuple(names)), self.length), np.int64)

    def bounds(self) -> tuple[float, float]:
        return 0, self.num_words - 1


class Number(_Kind):
    """A number that a GAN is given when it samples, such as a continuous code, float32. No dataset has such a field."""

    kind: Literal["number"] = "number"
    low: float = -1.0
    """The least value."""
    high: float = 1.0
    """The greatest value."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> type[Any]:
        return np.float32

    @property
    def text(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"

    def drawn(self, draws: Draws) -> Tensor:
        return draws.uniform() * (self.high - self.low) + self.low

    def bounds(self) -> tuple[float, float]:
        return self.low, self.high


def main_label(names: Iterable[str]) -> str | None:
    """Which of several fields with labels is the main one: `label` if there is such a field, else the first by name.

    Ingest counts its classes, and metrics per class use it.

    Args:
        names: the names of all fields with labels.

    Returns:
        The field's name; None if `names` is empty.
    """
    return min(names, key=lambda name: (name != Label.main_name, name), default=None)


def _channels(number: int) -> str:
    return "1 channel" if number == 1 else f"{number} channels"


@lru_cache(maxsize=4)
def _token_numbers(words: tuple[str, ...]) -> dict[str, int]:
    return token_numbers(words)


def _kind_of(value: Any) -> Any:
    return value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)


FieldSpec = Annotated[
    Annotated[Picture, Tag("image")]
    | Annotated[Frames, Tag("frames")]
    | Annotated[Label, Tag("label")]
    | Annotated[Tokens, Tag("tokens")]
    | Annotated[Number, Tag("number")]
    | Annotated[Mask, Tag("mask")],
    Discriminator(_kind_of),
]
Fields = Mapping[str, FieldSpec]
_FIELDS: TypeAdapter[dict[str, FieldSpec]] = TypeAdapter(dict[str, FieldSpec])


def fields_of_format_1(image_size: int, channels: int, fields: Sequence[str], num_classes: int) -> dict[str, Any]:
    """Typed fields, as JSON, from what manifests and models of format 1 hold: names of fields, one size for all images,
    one number of classes."""
    kinds: dict[str, dict[str, Any]] = {
        Label.main_name: {"kind": "label", "num_classes": num_classes},
        Tokens.main_name: {"kind": "tokens", "length": 0, "num_words": 0},
    }
    picture = {"kind": "image", "size": image_size, "channels": channels}
    return {name: kinds.get(name, picture) for name in fields}


def parse_fields(values: Any) -> dict[str, FieldSpec]:
    """Typed fields from JSON: name -> settings of a kind.

    Raises:
        ValueError: `values` are not fields; the message says what is wrong.
    """
    try:
        return _FIELDS.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
