"""What a source of images is. A source's name is its file's name and its key under `sources:` in params.yaml.

A source lists its items; each tells how to read and decode its images. Items are small and picklable: worker processes
read and decode them in parallel.
"""

from __future__ import annotations

import functools
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from PIL import Image

from ...fields import Frames, Label, Picture, Tokens, main_label
from ...section import Section
from ...words import NUM_RESERVED
from ..images.decoding import UnreadableImage, check_size, decode, deep_kind_of
from ..images.value_range import Kind
from ..settings import DataSettings
from ..shards.manifest import LeftOut, Split

_NO_VALUES: Mapping[str, int | str] = {}
_MAX_FILE_BYTES = 2**30  # the largest image that data.max_pixels allows, uncompressed


class SourceSettings(Section):
    """Base of a source's own settings; their place in params.yaml is sources.<file name>."""


class _OpenFile:
    """A file that is open for as long as this object is there."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


@functools.lru_cache(maxsize=4)
def _opened(path: Path) -> _OpenFile:
    return _OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


@contextmanager
def files_kept_open() -> Iterator[None]:
    """Within it, a file of many images is opened once for all of them; it has to stay as it is."""
    _opened.cache_clear()
    try:
        yield
    finally:
        _opened.cache_clear()


def _read_range(path: Path, offset: int, num_bytes: int) -> bytes:
    if num_bytes > _MAX_FILE_BYTES:
        raise UnreadableImage(f"{num_bytes:,} bytes; at most {_MAX_FILE_BYTES:,} are read")
    try:
        content = os.pread(_opened(path).descriptor, num_bytes, offset)
    except OSError as error:
        raise UnreadableImage(f"cannot be read from {path}: {error.strerror}") from None
    if len(content) != num_bytes:
        raise UnreadableImage(f"{path} ends within this image")
    return content


class ImageReference(ABC):
    """Where an image's raw content lies, and how to decode it."""

    @abstractmethod
    def read(self) -> bytes:
        """The raw content, whose hash decides the sample's split.

        Raises:
            UnreadableImage: it cannot be read.
        """

    @abstractmethod
    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        """The image, upright, in whatever mode.

        Raises:
            UnreadableImage: it cannot be decoded, or has more than `settings.max_pixels` pixels.
        """

    def kind(self, content: bytes, settings: DataSettings) -> Kind | None:
        """Which numbers the image holds where they are more than 8 bits; else None. Without decoding it."""
        return None

    @property
    def decoding(self) -> str:
        """What decides the decoded image beside content, settings and code; equal content may then be told apart."""
        return ""

    @property
    def num_held_bytes(self) -> int:
        """Bytes of content that travel with the reference itself."""
        return 0


class ImageFile(ImageReference):
    """An image file in any format that Pillow decodes, wherever it lies."""

    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        return decode(content, settings.max_pixels)

    def kind(self, content: bytes, settings: DataSettings) -> Kind | None:
        return deep_kind_of(content, settings.max_pixels)


@dataclass(frozen=True)
class EncodedFile(ImageFile):
    """An image file in a folder."""

    path: Path

    def read(self) -> bytes:
        try:
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE_BYTES:
                raise UnreadableImage(f"no regular file of at most {_MAX_FILE_BYTES} bytes")
            return self.path.read_bytes()
        except OSError as error:
            raise UnreadableImage(f"cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class FileRange(ImageFile):
    """An image file that lies within another file, such as a tar: `num_bytes` from `offset` on."""

    path: Path
    offset: int
    num_bytes: int

    def read(self) -> bytes:
        return _read_range(self.path, self.offset, self.num_bytes)


@dataclass(frozen=True)
class ImageInMemory(ImageFile):
    """An image file that came with a stream: it is held here, and can be read nowhere again."""

    content: bytes

    def read(self) -> bytes:
        return self.content

    @property
    def num_held_bytes(self) -> int:
        return len(self.content)


@dataclass(frozen=True)
class MissingImage(ImageReference):
    """An image that should be there and is not."""

    reason: str

    def read(self) -> bytes:
        raise UnreadableImage(self.reason)

    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        raise UnreadableImage(self.reason)


@dataclass(frozen=True)
class RawGrey(ImageReference):
    """`height` x `width` bytes from `offset` on in a file, one a pixel."""

    path: Path
    offset: int
    height: int
    width: int

    def read(self) -> bytes:
        return _read_range(self.path, self.offset, self.height * self.width)

    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        check_size(self.width, self.height, settings.max_pixels)
        return Image.frombytes("L", (self.width, self.height), content)

    @property
    def decoding(self) -> str:
        return f"grey {self.width} x {self.height}"


class Item(NamedTuple):
    """One sample of a source.

    Attributes:
        name: unique within the source and stable; what messages call it.
        images: by field; of a field of frames, one reference per frame.
        values: class numbers and texts, by field.
        split: where the source itself says which split it belongs to; else its content decides.
    """

    name: str
    images: Mapping[str, ImageReference | tuple[ImageReference, ...]]
    values: Mapping[str, int | str] = _NO_VALUES
    split: Split | None = None

    def references(self, field: str) -> tuple[ImageReference, ...]:
        """The images of a field: one, or those of its frames."""
        images = self.images[field]
        return images if isinstance(images, tuple) else (images,)


@dataclass(frozen=True)
class Items(Iterable[Item]):
    """A known number of items, made anew whenever they are gone through: a million of them take memory."""

    number: int
    make: Callable[[], Iterator[Item]]

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[Item]:
        return self.make()


@dataclass(frozen=True)
class Pictures:
    """A field of a source's items that is an image.

    Attributes:
        size: height and width after ingest; data.image_size when None.
    """

    size: int | None = None

    def spec(self, settings: DataSettings) -> Picture:
        return Picture(size=self.size or settings.image_size, channels=settings.channels)


@dataclass(frozen=True)
class Films:
    """A field of frames of data.image_size."""

    num_frames: int

    def spec(self, settings: DataSettings) -> Frames:
        return Frames(num_frames=self.num_frames, size=settings.image_size, channels=settings.channels)


@dataclass(frozen=True)
class Classes:
    """A field of labels, with the classes' names by number."""

    names: tuple[str, ...]

    def spec(self, settings: DataSettings) -> Label:
        return Label(num_classes=len(self.names))


@dataclass(frozen=True)
class Texts:
    """A field of texts."""

    def spec(self, settings: DataSettings) -> Tokens:
        """With the most words that there may be: how many there are is known when all were read."""
        num_words = settings.vocabulary_size + NUM_RESERVED
        return Tokens(length=settings.max_words, num_words=num_words)


@dataclass(frozen=True)
class Description:
    """What is known of a source's images before any is read.

    Attributes:
        fields: what every item has, by name.
        text: one sentence.
        main: the field with the images that generators make; the first field of images by default.
        num_images: how many, where it is known; an upper bound will do.
    """

    fields: Mapping[str, Pictures | Films | Classes | Texts]
    text: str
    licence: str
    homepage: str = ""
    num_images: int | None = None
    main: str = ""

    def __post_init__(self) -> None:
        first = next(name for name, field in self.fields.items() if isinstance(field, Pictures))
        object.__setattr__(self, "main", self.main or first)

    def specs(self, settings: DataSettings) -> dict[str, Picture | Frames | Label | Tokens]:
        """The fields as the manifest will have them under these settings."""
        return {name: field.spec(settings) for name, field in self.fields.items()}

    @property
    def picture_fields(self) -> tuple[str, ...]:
        """Names of the fields of images and frames, in order."""
        return tuple(name for name, field in self.fields.items() if isinstance(field, Pictures | Films))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by number, of the field that `Manifest.label` names; empty without labels."""
        found = {name: field.names for name, field in self.fields.items() if isinstance(field, Classes)}
        label = main_label(found)
        return () if label is None else found[label]


class Source(ABC):
    """Images from one kind of place. A subclass is final and has a file of its own."""

    Settings: ClassVar[type[SourceSettings]]

    @abstractmethod
    def __init__(self, settings: SourceSettings) -> None: ...

    @abstractmethod
    def check(self) -> None:
        """Raise GanpipeError for what is wrong and can be known without a network and in a moment."""

    def check_against(self, settings: DataSettings) -> None:
        """Raise GanpipeError for what cannot become what `settings` ask for; called after `check`."""
        return None

    @abstractmethod
    def describe(self) -> Description:
        """Fields, classes, licence; without a network and in a moment.

        Raises:
            GanpipeError: as `check`.
        """

    @abstractmethod
    def items(self) -> Iterable[Item]:
        """All items, in an order that depends on the images' names alone; a sequence where their number is known.

        Fetches what is not on this host yet.

        Raises:
            GanpipeError: it cannot be fetched or read.
        """

    def left_out(self) -> tuple[LeftOut, ...]:
        """What there is beside the images and was not taken; asked once all items were gone through."""
        return ()

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when the source's inputs do, cheap enough to ask every few seconds: no image is read.

        Made of names, sizes and times of change (files), ETag or size (URLs), versions (packages). Ask each time of a
        new object, or of this one: nothing is remembered from the call before.

        Raises:
            GanpipeError: the inputs are not there.
        """
