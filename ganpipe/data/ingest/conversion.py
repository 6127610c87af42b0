"""From a source's item to a sample: read, known by its digest, decoded only where no earlier ingest has done so."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
import PIL
from PIL import features

from ...errors import GanpipeError
from ...words import words_of
from ..images.decoding import UnreadableImage, blank_kind, encode_png, extent, flatten, heif_version, pad, scale
from ..images.value_range import FULL_RANGES, Extent, Kind, Range
from ..settings import DataSettings
from ..shards.manifest import Split
from ..sources.base import Classes, Description, ImageReference, Item, Pictures, Texts, files_kept_open

DIGEST_BYTES = 16


class Converted(NamedTuple):
    """A sample, or why its item could not be read.

    Attributes:
        digest: of its raw contents and how they are decoded: names the sample's images.
        split_is_given: by the source; else it follows from the content.
        values: members of the other fields, in their order.
        images: PNGs in the order of the fields with pictures; None where `digest` was known.
        oddity: what is wrong with how an image looks, where there is nothing to see in it.
        extents: of images of more than 8 bits, where their range is not decided yet: all else but the name is missing.
    """

    name: str
    digest: bytes = b""
    split: Split = "train"
    split_is_given: bool = False
    values: tuple[bytes, ...] = ()
    images: tuple[bytes, ...] | None = None
    unreadable: str | None = None
    blank_kind: str | None = None
    extents: tuple[Extent, ...] = ()


def _split_at(digests: Iterable[bytes], validation_fraction: float) -> Split:
    position = int.from_bytes(hashlib.sha256(b"".join(digests)).digest()[:8], "big") / 2**64
    return "validation" if position < validation_fraction else "train"


def split_of(contents: Iterable[bytes], validation_fraction: float) -> Split:
    """The split of a sample with these raw contents: a function of them alone.

    Raising the fraction moves samples from train to validation only.
    """
    return _split_at((hashlib.sha256(content).digest() for content in contents), validation_fraction)


@functools.lru_cache
def _digest_of_decodings(decodings: tuple[str, ...]) -> bytes:
    return hashlib.sha256("\0".join(("ganpipe sample", *decodings)).encode()).digest()


def _sample_digest(digests: Sequence[bytes], decodings: tuple[str, ...]) -> bytes:
    """Independent of the bits that decide the split."""
    return hashlib.sha256(_digest_of_decodings(decodings) + b"".join(digests)).digest()[:DIGEST_BYTES]


@functools.lru_cache(maxsize=1)
def _read_known(path: Path) -> frozenset[bytes]:
    content = path.read_bytes()
    return frozenset(content[start : start + DIGEST_BYTES] for start in range(0, len(content), DIGEST_BYTES))


def check_values(item: Item, description: Description, settings: DataSettings) -> tuple[bytes, ...]:
    """The members of an item's labels and texts, in the fields' order.

    Raises:
        GanpipeError: naming the item and what was expected.
    """
    return tuple(
        _class_member(item, name, field) if isinstance(field, Classes) else _text_member(item, name, settings)
        for name, field in description.fields.items()
        if isinstance(field, Classes | Texts)
    )


def _class_member(item: Item, name: str, field: Classes) -> bytes:
    number = item.values.get(name)
    if not isinstance(number, int) or not 0 <= number < len(field.names):
        raise GanpipeError(f"{item.name}: {name} {number}, but there are {len(field.names)} classes")
    return str(number).encode()


def _text_member(item: Item, name: str, settings: DataSettings) -> bytes:
    text = item.values.get(name)
    try:
        content = text.encode() if isinstance(text, str) else None
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON may hold
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
    """What decides an image beside its content and the settings. The range of a type itself goes without saying."""
    if kind is None or decided.get(kind, FULL_RANGES[kind]) == FULL_RANGES[kind]:
        return reference.decoding
    low, high = decided[kind]
    return f"{reference.decoding} {low!r} to {high!r}"


def _convert_one(
    item: Item,
    description: Description,
    settings: DataSettings,
    known_digests: frozenset[bytes],
    decided: Mapping[Kind, Range] | None,
) -> Converted:
    values = check_values(item, description, settings)
    groups = [item.references(name) for name in description.picture_fields]
    references = [reference for group in groups for reference in group]
    images: list[bytes] = []
    blank: str | None = None
    try:
        contents = [reference.read() for reference in references]
        pairs = list(zip(references, contents, strict=True))
        # A range that the settings name is among what names the shards' notes; one that the dataset decides is not.
        by_data = settings.value_range == "auto"
        kinds = [reference.kind(content, settings) if by_data else None for reference, content in pairs]
        if decided is None and any(kinds):
            extents = [extent(reference.decode(content, settings)) for reference, content in pairs]
            return Converted(item.name, extents=tuple(found for found in extents if found is not None))
        decided = decided or {}
        digests = [hashlib.sha256(content).digest() for content in contents]
        decodings = (
            _decoding_name(reference, kind, decided) for reference, kind in zip(references, kinds, strict=True)
        )
        digest = _sample_digest(digests, tuple(decodings))
        if digest not in known_digests:
            waiting = iter(pairs)
            for name, group in zip(description.picture_fields, groups, strict=True):
                own = _field_settings(description.fields[name], settings)
                fitted = []
                for reference, content in itertools.islice(waiting, len(group)):
                    scaled = scale(flatten(reference.decode(content, own), own, decided), own)
                    blank = blank or blank_kind(scaled)
                    fitted.append(np.asarray(pad(scaled, own)))
                images.append(encode_png(np.concatenate(fitted)))
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
    )


def _field_settings(field: object, settings: DataSettings) -> DataSettings:
    """The settings with the field's own size, where it has one: an image of such a field always fills its square."""
    size = field.size if isinstance(field, Pictures) else None
    return settings if size is None else settings.model_copy(update={"image_size": size, "enlarge": "resize"})


def convert(
    task: Sequence[Item],
    description: Description,
    settings: DataSettings,
    known_digests: Path | None,
    decided: Mapping[Kind, Range] | None = None,
) -> list[Converted]:
    """The samples of these items, in their order.

    Args:
        known: a file of digests, of DIGEST_BYTES each, whose images need no decoding.
        decided: the dataset's range of each kind of image of more than 8 bits; until it is known, such images are only
            measured.

    Raises:
        GanpipeError: an item's label is no class, or its text is none that a vocabulary takes.
    """
    digests = _read_known(known_digests) if known_digests is not None else frozenset()
    with files_kept_open():
        return [_convert_one(item, description, settings, digests, decided) for item in task]


def conversion_key(settings: DataSettings, description: Description) -> str:
    """Names everything that decides a sample's PNGs beside its digest: settings, code, versions of the decoders."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):  # of all of data/
        code.update(path.read_bytes() + b"\0")
    kept = settings.model_dump(
        mode="json", include={"image_size", "channels", "shape", "enlarge", "background", "value_range", "max_pixels"}
    )
    decoders = {name: features.version(name) for name in ("zlib", "jpg", "jpg_2000", "libtiff", "webp", "avif")}
    decoders["heif"] = heif_version()
    sizes = [(name, repr(description.fields[name])) for name in description.picture_fields]
    parts = [kept, sizes, code.hexdigest(), PIL.__version__, imagecodecs.__version__, decoders]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
