"""The interface of a source of images. A source's name is its file's name and its key under `sources:` in params.yaml.

A source lists items. An item says how to read and decode its images. Items are small and picklable, because worker
processes read and decode them in parallel.
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
from ..images.facts import Facts, facts_of
from ..images.value_range import Kind
from ..settings import DataSettings
from ..shards.manifest import LeftOut, Split

_NO_VALUES: Mapping[str, int | str] = {}
_MAX_FILE_BYTES = 2**30  # the largest image that data.max_pixels allows, uncompressed


class SourceSettings(Section):
    """Base of a source's settings, which are the section sources.<file name> of params.yaml."""


class _OpenFile:
    """An open file, which is closed when this object is deleted."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


@functools.lru_cache(maxsize=4)
def _opened(path: Path) -> _OpenFile:
    return _OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


@contextmanager
def files_kept_open() -> Iterator[None]:
    """Inside this context, a file that holds many images is opened once for all of them. The file must not change."""
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
    """Where the raw content of an image lies, and how to decode it."""

    @abstractmethod
    def read(self) -> bytes:
        """The raw content, whose hash decides the sample's split.

        Raises:
            UnreadableImage: it cannot be read.
        """

    @abstractmethod
    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        """The upright image, in any mode of Pillow's.

        Args:
            content: what `read` returned.

        Raises:
            UnreadableImage: it cannot be decoded, or has more than `settings.max_pixels` pixels.
        """

    def kind(self, content: bytes, settings: DataSettings) -> Kind | None:
        """The type of the image's values if they have more than 8 bits, else None. The image is not decoded."""
        return None

    def facts(self, content: bytes) -> Facts | None:
        """What the image is before anything is done to it; None where it is made by the source, or has no header."""
        return None

    @property
    def decoding(self) -> str:
        """What the decoded image depends on apart from content, settings and code, such as a renderer's version.

        It is part of the sample's digest, so that equal contents that are decoded differently are not mixed up.
        """
        return ""

    @property
    def is_remote(self) -> bool:
        """Whether reading it waits for a server, so that others should be read meanwhile."""
        return False

    @property
    def num_held_bytes(self) -> int:
        """Bytes of content that the reference itself holds in memory, and that are pickled with it."""
        return 0


class ImageFile(ImageReference):
    """An image file in any format that Pillow decodes; subclasses say where it lies."""

    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        return decode(content, settings.max_pixels)

    def kind(self, content: bytes, settings: DataSettings) -> Kind | None:
        return deep_kind_of(content, settings.max_pixels)

    def facts(self, content: bytes) -> Facts | None:
        return facts_of(content)


@dataclass(frozen=True)
class EncodedFile(ImageFile):
    """An image file in a folder."""

    path: Path

    def read(self) -> bytes:
        try:
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE_BYTES:
                raise UnreadableImage(f"not a regular file of at most {_MAX_FILE_BYTES} bytes")
            return self.path.read_bytes()
        except OSError as error:
            raise UnreadableImage(f"cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class FileRange(ImageFile):
    """An image file inside another file, such as a tar: `num_bytes` bytes from `offset` on."""

    path: Path
    offset: int
    num_bytes: int

    def read(self) -> bytes:
        return _read_range(self.path, self.offset, self.num_bytes)


@dataclass(frozen=True)
class ImageInMemory(ImageFile):
    """An image file that was read from a stream. Its content is held in memory, because it cannot be read again."""

    content: bytes

    def read(self) -> bytes:
        return self.content

    @property
    def num_held_bytes(self) -> int:
        return len(self.content)


@dataclass(frozen=True)
class MissingImage(ImageReference):
    """An image that is missing; reading it raises the reason."""

    reason: str

    def read(self) -> bytes:
        raise UnreadableImage(self.reason)

    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        raise UnreadableImage(self.reason)


@dataclass(frozen=True)
class RawGrey(ImageReference):
    """A grey image without a header: `height` x `width` bytes from `offset` on in a file, one byte per pixel."""

    path: Path
    offset: int
    height: int
    width: int

    def read(self) -> bytes:
        return _read_range(self.path, self.offset, self.height * self.width)

    def decode(self, content: bytes, settings: DataSettings) -> Image.Image:
        check_size(self.width, self.height, settings.max_pixels)
        return Image.frombuffer("L", (self.width, self.height), content, "raw", "L", 0, 1)  # without a copy

    def facts(self, content: bytes) -> Facts | None:
        return Facts("raw", "L", 8, self.width, self.height)

    @property
    def decoding(self) -> str:
        return f"grey {self.width} x {self.height}"


class Item(NamedTuple):
    """One sample of a source.

    Attributes:
        name: unique within the source, and the same in every ingest; used in messages.
        images: by field; for a field of frames, one reference per frame.
        values: class numbers and texts, by field.
        split: the split that the source chose; None if the item's content decides.
    """

    name: str
    images: Mapping[str, ImageReference | tuple[ImageReference, ...]]
    values: Mapping[str, int | str] = _NO_VALUES
    split: Split | None = None

    def references(self, field: str) -> tuple[ImageReference, ...]:
        """The images of a field: one image, or one per frame."""
        images = self.images[field]
        return images if isinstance(images, tuple) else (images,)


@dataclass(frozen=True)
class Items(Iterable[Item]):
    """A known number of items. They are made anew in each iteration, because a million of them would take much memory.

    Attributes:
        number: how many items there are.
        make: starts a new iteration.
    """

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
        size: height and width after ingest, in pixels; data.image_size when None.
    """

    size: int | None = None

    def spec(self, settings: DataSettings) -> Picture:
        return Picture(size=self.size or settings.image_size, channels=settings.channels)


@dataclass(frozen=True)
class Films:
    """A field of a source's items that is a sequence of `num_frames` images, each of size data.image_size."""

    num_frames: int

    def spec(self, settings: DataSettings) -> Frames:
        return Frames(num_frames=self.num_frames, size=settings.image_size, channels=settings.channels)


@dataclass(frozen=True)
class Classes:
    """A field of a source's items that is a label, with the names of the classes by number."""

    names: tuple[str, ...]

    def spec(self, settings: DataSettings) -> Label:
        return Label(num_classes=len(self.names))


@dataclass(frozen=True)
class Texts:
    """A field of a source's items that is a text."""

    def spec(self, settings: DataSettings) -> Tokens:
        """The field with the largest allowed sizes, because the real ones are known only after all texts were read."""
        num_words = settings.vocabulary_size + NUM_RESERVED
        return Tokens(length=settings.max_words, num_words=num_words)


@dataclass(frozen=True)
class Description:
    """What is known about a source's images before any image is read.

    Attributes:
        fields: the fields of every item, by name.
        text: one sentence on what the images are.
        licence: under which terms the images may be used.
        homepage: URL of a page about the source.
        num_images: the number of items, or an upper bound of it; None if it is not known.
        main: the field with what generators make; by default the first field of images, else the first of frames.
    """

    fields: Mapping[str, Pictures | Films | Classes | Texts]
    text: str
    licence: str
    homepage: str = ""
    num_images: int | None = None
    main: str = ""

    def __post_init__(self) -> None:
        images = [name for name, field in self.fields.items() if isinstance(field, Pictures)]
        object.__setattr__(self, "main", self.main or (images or self.picture_fields)[0])

    def specs(self, settings: DataSettings) -> dict[str, Picture | Frames | Label | Tokens]:
        """The typed fields of the manifest under these settings, by name."""
        return {name: field.spec(settings) for name, field in self.fields.items()}

    @functools.cached_property
    def picture_fields(self) -> tuple[str, ...]:
        """Names of the fields of images and frames, in order."""
        return tuple(name for name, field in self.fields.items() if isinstance(field, Pictures | Films))

    @functools.cached_property
    def value_fields(self) -> tuple[str, ...]:
        """Names of the fields of labels and texts, in order."""
        return tuple(name for name, field in self.fields.items() if isinstance(field, Classes | Texts))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the main field with labels, by number; empty if there are no labels."""
        found = {name: field.names for name, field in self.fields.items() if isinstance(field, Classes)}
        label = main_label(found)
        return () if label is None else found[label]


class Source(ABC):
    """A kind of source of images. Each subclass has its own file and is final."""

    Settings: ClassVar[type[SourceSettings]]

    @abstractmethod
    def __init__(self, settings: SourceSettings) -> None: ...

    @abstractmethod
    def check(self) -> None:
        """Find the errors that can be found quickly and without a network.

        Raises:
            GanpipeError: the source cannot be used as it is.
        """

    def check_against(self, settings: DataSettings) -> None:
        """Require that the images can be made as `settings` say; called after `check`.

        Raises:
            GanpipeError: they cannot.
        """
        return None

    @abstractmethod
    def describe(self) -> Description:
        """Fields, classes and licence; quickly and without a network.

        Raises:
            GanpipeError: as `check`.
        """

    @abstractmethod
    def items(self) -> Iterable[Item]:
        """All items, in an order that depends on the images' names only; it has a length if their number is known.

        Files that are not on this host are fetched.

        Raises:
            GanpipeError: files cannot be fetched or read.
        """

    def left_out(self) -> tuple[LeftOut, ...]:
        """The files that the source left out; to be called after the iteration over all items has ended."""
        return ()

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest that changes when the source's inputs change, cheap enough to be computed every few seconds.

        No image is read: it covers names, sizes and modification times of files, ETags or sizes of URLs, and versions
        of packages. Nothing is cached between two calls.

        Raises:
            GanpipeError: the inputs do not exist.
        """
