"""What a sample is made of: typed fields. What differs between their kinds stands here, and in no other place: how a
field is called in a shard, which array holds it, what a text says of it, how it is drawn where nobody gives it.

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
from .words import numbers_of, tokenise, words_of

if TYPE_CHECKING:
    from torch import Tensor

MAX_CLASSES = 100_000
MAX_SIDE = 4096
MAX_WORDS = 1000
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,49}$"  # names a file of the decoded cache


class Draws(Protocol):
    """Random numbers for N rows, such as those of `gans/draws.py`."""

    def uniform(self, *shape: int) -> Tensor: ...

    def integers(self, high: int) -> Tensor: ...


class _Kind(Section, ABC):
    """What all kinds have in common."""

    main_name: ClassVar[str] = ""
    """A field of this name has members without the name in theirs: `.png` for `image`."""
    suffix: ClassVar[str] = ""
    rank: ClassVar[int] = 0
    """Where among a sample's members in a shard it stands."""
    is_picture: ClassVar[bool] = False

    def member(self, name: str) -> str:
        """The ending of the members of the field `name` in a shard, without its first dot: cls, png, source.png, …"""
        return self.suffix if name == self.main_name else f"{name}.{self.suffix}"

    @property
    @abstractmethod
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one sample's array."""

    @property
    def dtype(self) -> type[Any]:
        """uint8 for pictures, else int64."""
        return np.uint8 if self.is_picture else np.int64

    @property
    @abstractmethod
    def text(self) -> str:
        """For people."""

    def parse(self, text: str, names: Sequence[str]) -> Any:
        """A sample's array, or number, from a text that a shard or a request holds.

        Args:
            names: of the classes or words, by number.

        Raises:
            ValueError: what was expected.
        """
        raise ValueError(f"a field of the kind {type(self).__name__.lower()} is no text")

    def drawn(self, draws: Draws) -> Tensor | None:
        """Rows where nobody gives them, (N,); None where they cannot be drawn."""
        return None

    def bounds(self) -> tuple[float, float] | None:
        """The least and the greatest number that a row may hold; None for pictures."""
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
    def text(self) -> str:
        return f"{self.size} px, {_channels(self.channels)}"


class Frames(_Kind):
    """Images in their order in time, uint8, (T, C, H, W). In a shard they stand below each other in one PNG."""

    kind: Literal["frames"] = "frames"
    num_frames: int = Field(ge=1, le=1000)
    """T."""
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
    def text(self) -> str:
        return f"{self.num_frames} frames of {self.size} px, {_channels(self.channels)}"


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
    """A text as numbers of words, (L,); 0 fills it up, 1 is a word that the vocabulary lacks."""

    kind: Literal["tokens"] = "tokens"
    length: int = Field(ge=0, le=MAX_WORDS)
    """L. 0 where no vocabulary was made, as in shards of an earlier ganpipe: such a text is stored only."""
    num_words: int = Field(ge=0)
    """Different numbers that may occur: rows of an embedding."""
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
            raise ValueError(f"is {text[:40]!r}; expected a word at the least")
        if len(found) > self.length:
            raise ValueError(f"has {len(found)} words; expected at most {self.length}")
        return np.array(tokenise(text, _numbers(tuple(names)), self.length), np.int64)

    def bounds(self) -> tuple[float, float]:
        return 0, self.num_words - 1


class Number(_Kind):
    """A number that a GAN is given when it samples, such as a continuous code; no dataset has such a field."""

    kind: Literal["number"] = "number"
    low: float = -1.0
    high: float = 1.0
    """From `low` to `high`."""

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
    """Of several fields with labels the one whose classes are counted: `label`, else the first by name."""
    return min(names, key=lambda name: (name != Label.main_name, name), default=None)


def _channels(number: int) -> str:
    return "1 channel" if number == 1 else f"{number} channels"


@lru_cache(maxsize=4)
def _numbers(words: tuple[str, ...]) -> dict[str, int]:
    return numbers_of(words)


def _kind_of(value: Any) -> Any:
    return value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)


FieldSpec = Annotated[
    Annotated[Picture, Tag("image")]
    | Annotated[Frames, Tag("frames")]
    | Annotated[Label, Tag("label")]
    | Annotated[Tokens, Tag("tokens")]
    | Annotated[Number, Tag("number")],
    Discriminator(_kind_of),
]
Fields = Mapping[str, FieldSpec]
_FIELDS: TypeAdapter[dict[str, FieldSpec]] = TypeAdapter(dict[str, FieldSpec])


def fields_of_format_1(image_size: int, channels: int, fields: Sequence[str], num_classes: int) -> dict[str, Any]:
    """Typed fields from what manifests and models of format 1 said: names, one size for all images, classes."""
    kinds: dict[str, dict[str, Any]] = {
        Label.main_name: {"kind": "label", "num_classes": num_classes},
        Tokens.main_name: {"kind": "tokens", "length": 0, "num_words": 0},
    }
    picture = {"kind": "image", "size": image_size, "channels": channels}
    return {name: kinds.get(name, picture) for name in fields}


def parse_fields(values: Any) -> dict[str, FieldSpec]:
    """Fields from JSON.

    Raises:
        ValueError: they are none; says what is wrong.
    """
    try:
        return _FIELDS.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
