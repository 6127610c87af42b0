"""From a source's item to a sample: read, identified by its digest, decoded only if no earlier ingest decoded it."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
import numpy.typing as npt
import PIL
from PIL import features

from ...errors import GanpipeError
from ...words import words_of
from ..images.decoding import UnreadableImage, blank_kind, encode_png, extent, flatten, heif_version, pad, scale
from ..images.facts import Facts
from ..images.value_range import FULL_RANGES, Extent, Kind, Range
from ..settings import DataSettings
from ..shards.manifest import Split
from ..sources.base import (
    Classes,
    Description,
    ImageInMemory,
    ImageReference,
    Item,
    MissingImage,
    Pictures,
    files_kept_open,
)

DIGEST_BYTES = 16
DIGEST_TYPE = np.dtype(f"S{DIGEST_BYTES}")
KnownDigests = npt.NDArray[np.bytes_]
"""Different digests, sorted. Searching this array takes no memory of its own, so that processes share it."""
_NUM_CONNECTIONS = 16
"""Images that a process asks servers for at a time."""


class Converted(NamedTuple):
    """A sample, or the reason why its item could not be read.

    Attributes:
        name: the item's name.
        digest: identifies the sample's images: DIGEST_BYTES of a hash of their raw contents and how they are decoded.
        split_is_given: whether the source chose the split; else it follows from the content.
        values: the contents of the files of all labels and texts, in the order of the fields.
        images: one PNG per field of images, in the order of the fields; None if `digest` was known.
        unreadable: why the item could not be read; None if it could.
        blank_kind: "nearly black", "nearly white" or "flat" if a person would see nothing in an image; else None.
        facts: what the image of the main field was before anything was done to it; None where that is not known.
        extents: of the item's images of more than 8 bits, if the dataset's range is not chosen yet. Then no attribute
            is set but this one and the name.
    """

    name: str
    digest: bytes = b""
    split: Split = "train"
    split_is_given: bool = False
    values: tuple[bytes, ...] = ()
    images: tuple[bytes, ...] | None = None
    unreadable: str | None = None
    blank_kind: str | None = None
    facts: Facts | None = None
    extents: tuple[Extent, ...] = ()


def _split_at(digests: Iterable[bytes], validation_fraction: float) -> Split:
    position = int.from_bytes(hashlib.sha256(b"".join(digests)).digest()[:8], "big") / 2**64
    return "validation" if position < validation_fraction else "train"


def split_of(contents: Iterable[bytes], validation_fraction: float) -> Split:
    """The split of a sample, which depends on the raw contents of its images and on the fraction only.

    A larger fraction moves samples from train to validation, and none the other way.

    Args:
        contents: the raw content of each of its images.
        validation_fraction: the share of all samples that belong to the validation split, in [0, 1).
    """
    return _split_at((hashlib.sha256(content).digest() for content in contents), validation_fraction)


@functools.lru_cache
def _digest_of_decodings(decodings: tuple[str, ...]) -> bytes:
    return hashlib.sha256("\0".join(("ganpipe sample", *decodings)).encode()).digest()


def _sample_digest(digests: Sequence[bytes], decodings: tuple[str, ...]) -> bytes:
    """The digest that identifies a sample's images. It is independent of the bits that decide the split."""
    return hashlib.sha256(_digest_of_decodings(decodings) + b"".join(digests)).digest()[:DIGEST_BYTES]


def known_digests(digests: Iterable[bytes]) -> KnownDigests:
    """These digests as an array."""
    return np.unique(np.array([*digests], DIGEST_TYPE))


@functools.lru_cache(maxsize=1)
def _mapped(path: Path) -> KnownDigests:
    return np.memmap(path, DIGEST_TYPE, "r")


def _is_known(digest: bytes, known: KnownDigests | None) -> bool:
    if known is None:
        return False
    position = int(known.searchsorted(np.frombuffer(digest, DIGEST_TYPE))[0])
    return known[position : position + 1].tobytes() == digest  # an S16 by itself has lost its last zeros


def check_values(item: Item, description: Description, settings: DataSettings) -> tuple[bytes, ...]:
    """The contents of the files of an item's labels and texts in a shard, in the order of the fields.

    Raises:
        GanpipeError: a label is not a class, or a text has too few or too many words; names the item.
    """
    contents = []
    for name in description.value_fields:
        field = description.fields[name]
        if isinstance(field, Classes):
            contents.append(_class_member(item, name, field))
        else:
            contents.append(_text_member(item, name, settings))
    return tuple(contents)


def _class_member(item: Item, name: str, field: Classes) -> bytes:
    number = item.values.get(name)
    if not isinstance(number, int) or not 0 <= number < len(field.names):
        raise GanpipeError(f"{item.name}: {name} is {number}, but there are {len(field.names)} classes")
    return str(number).encode()


def _text_member(item: Item, name: str, settings: DataSettings) -> bytes:
    text = item.values.get(name)
    try:
        content = text.encode() if isinstance(text, str) else None
    except UnicodeEncodeError:  # JSON may hold half of a surrogate pair
        content = None
    if content is None or not isinstance(text, str):
        raise GanpipeError(f"{item.name}: {name} {text!r}; expected a text that UTF-8 can hold")
    num_words = len(words_of(text))
    if not 1 <= num_words <= settings.max_words:
        expected = "expected at least one word" if not num_words else f"at most data.max_words = {settings.max_words}"
        raise GanpipeError(f"{item.name}: {name} {_short(text)} has {num_words} words; {expected}")
    return content


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _decoding_name(reference: ImageReference, kind: Kind | None, decided: Mapping[Kind, Range]) -> str:
    """What a decoded image depends on apart from its content and the settings; used in the sample's digest.

    The range is included only if it is not the full range of the type.
    """
    if kind is None or decided.get(kind, FULL_RANGES[kind]) == FULL_RANGES[kind]:
        return reference.decoding
    low, high = decided[kind]
    return f"{reference.decoding} {low!r} to {high!r}"


def _convert_one(
    item: Item,
    description: Description,
    settings: DataSettings,
    known: KnownDigests | None,
    decided: Mapping[Kind, Range] | None,
) -> Converted:
    values = check_values(item, description, settings)
    groups = [item.references(name) for name in description.picture_fields]
    references = groups[0] if len(groups) == 1 else tuple(itertools.chain.from_iterable(groups))
    images: list[bytes] = []
    blank: str | None = None
    try:
        contents = [reference.read() for reference in references]
        pairs = list(zip(references, contents, strict=True))
        # A range that the settings give is part of `conversion_key`; one that is chosen from the dataset is not.
        by_data = settings.value_range == "auto"
        kinds = [reference.kind(content, settings) if by_data else None for reference, content in pairs]
        if decided is None and any(kinds):
            extents = [extent(reference.decode(content, settings)) for reference, content in pairs]
            return Converted(item.name, extents=tuple(found for found in extents if found is not None))
        main = sum(map(len, groups[: description.picture_fields.index(description.main)]))
        facts = references[main].facts(contents[main])
        decided = decided or {}
        digests = [hashlib.sha256(content).digest() for content in contents]
        decodings = (
            _decoding_name(reference, kind, decided) for reference, kind in zip(references, kinds, strict=True)
        )
        digest = _sample_digest(digests, tuple(decodings))
        if not _is_known(digest, known):
            waiting = iter(contents)
            for name, group in zip(description.picture_fields, groups, strict=True):
                field_settings = _field_settings(description.fields[name], settings)
                fitted = []
                for reference, content in zip(group, waiting, strict=False):
                    flattened = flatten(reference.decode(content, field_settings), field_settings, decided)
                    scaled = scale(flattened, field_settings)
                    blank = blank or blank_kind(scaled)
                    fitted.append(pad(scaled, field_settings))
                images.append(encode_png(np.concatenate(fitted) if len(fitted) > 1 else fitted[0]))
    except UnreadableImage as error:
        return Converted(item.name, unreadable=str(error))
    return Converted(
        item.name,
        digest,
        item.split or _split_at(digests, settings.validation_fraction),
        item.split is not None,
        values,
        tuple(images) if images else None,
        blank_kind=blank,
        facts=facts,
    )


def _field_settings(field: object, settings: DataSettings) -> DataSettings:
    """The settings for one field: with its own image size if it has one. Images of such a size fill their square."""
    size = field.size if isinstance(field, Pictures) else None
    return settings if size is None else settings.model_copy(update={"image_size": size, "enlarge": "resize"})


def convert(
    task: Sequence[Item],
    description: Description,
    settings: DataSettings,
    known_digests: Path | KnownDigests | None,
    decided: Mapping[Kind, Range] | None = None,
) -> list[Converted]:
    """The samples of these items, in the order of the items.

    Args:
        task: the items.
        known_digests: the digests of samples that are not decoded, or a file that holds such an array.
        decided: the dataset's range of each kind of image of more than 8 bits. If None, the samples of such images hold
            their extents only.

    Raises:
        GanpipeError: an item's label is not a class, or its text has too few or too many words.
    """
    known = _mapped(known_digests) if isinstance(known_digests, Path) else known_digests
    with files_kept_open():
        return [_convert_one(item, description, settings, known, decided) for item in _fetched(task)]


def _fetched(task: Sequence[Item]) -> Sequence[Item]:
    """The items with all images that wait for a server read, many at a time."""
    references = [one for item in task for name in item.images for one in item.references(name) if one.is_remote]
    if not references:
        return task
    with ThreadPoolExecutor(_NUM_CONNECTIONS) as threads:
        read = dict(zip(references, threads.map(_read, references), strict=True))

    def replaced(item: Item, name: str) -> ImageReference | tuple[ImageReference, ...]:
        found = tuple(read.get(one, one) for one in item.references(name))
        return found if isinstance(item.images[name], tuple) else found[0]

    return [item._replace(images={name: replaced(item, name) for name in item.images}) for item in task]


def _read(reference: ImageReference) -> ImageReference:
    try:
        return ImageInMemory(reference.read())
    except UnreadableImage as error:
        return MissingImage(str(error))


def conversion_key(settings: DataSettings, description: Description) -> str:
    """Identifies all that a sample's PNGs depend on apart from its digest: settings, code, versions of the decoders."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):  # all code of ganpipe/data/
        code.update(path.read_bytes() + b"\0")
    kept = settings.model_dump(
        mode="json", include={"image_size", "channels", "shape", "enlarge", "background", "value_range", "max_pixels"}
    )
    decoders = {name: features.version(name) for name in ("zlib", "jpg", "jpg_2000", "libtiff", "webp", "avif")}
    decoders["heif"] = heif_version()
    sizes = [(name, repr(description.fields[name])) for name in description.picture_fields]
    parts = [kept, sizes, code.hexdigest(), PIL.__version__, imagecodecs.__version__, decoders]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
