"""From a source's item to a sample: read, known by its digest, decoded only where no earlier ingest has done so."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import PIL
from PIL import features

from ..errors import GanpipeError
from .images import UnreadableImage, encode_png, extent, flatten, heif_version, oddity, pad, scale
from .manifest import Split
from .settings import DataSettings
from .sources.base import Description, ImageReference, Item, reading
from .value_range import FULL, Extent, Kind, Range

DIGEST_BYTES = 16


class Converted(NamedTuple):
    """A sample, or why its item could not be read.

    Attributes:
        digest: of its raw contents and how they are decoded: names the sample's images.
        split_is_given: by the source; else it follows from the content.
        images: PNGs in the order of the image fields; None where `digest` was known.
        oddity: what is wrong with how an image looks, where there is nothing to see in it.
        extents: of images of more than 8 bits, where their range is not decided yet: all else but the name is missing.
    """

    name: str
    digest: bytes = b""
    split: Split = "train"
    split_is_given: bool = False
    label: int | None = None
    text: str | None = None
    images: tuple[bytes, ...] | None = None
    unreadable: str | None = None
    oddity: str | None = None
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


def _is_text(text: str | None) -> bool:
    try:
        return text is not None and text.encode() is not None
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON may hold
        return False


def _decoding(reference: ImageReference, kind: Kind | None, decided: Mapping[Kind, Range]) -> str:
    """What decides an image beside its content and the settings. The range of a type itself goes without saying."""
    if kind is None or decided.get(kind, FULL[kind]) == FULL[kind]:
        return reference.decoding
    low, high = decided[kind]
    return f"{reference.decoding} {low!r} to {high!r}"


def _convert_item(
    item: Item,
    description: Description,
    settings: DataSettings,
    known: frozenset[bytes],
    decided: Mapping[Kind, Range] | None,
) -> Converted:
    if "label" in description.fields and (item.label is None or not 0 <= item.label < len(description.classes)):
        raise GanpipeError(f"{item.name}: label {item.label}, but there are {len(description.classes)} classes")
    if "text" in description.fields and not _is_text(item.text):
        raise GanpipeError(f"{item.name}: text {item.text!r}; expected a text that UTF-8 can hold")
    references = [item.images[field] for field in description.image_fields]
    images: list[bytes] = []
    odd: str | None = None
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
        decodings = (_decoding(reference, kind, decided) for reference, kind in zip(references, kinds, strict=True))
        digest = _sample_digest(digests, tuple(decodings))
        if digest not in known:
            for reference, content in pairs:
                scaled = scale(flatten(reference.decode(content, settings), settings, decided), settings)
                odd = odd or oddity(scaled)
                images.append(encode_png(pad(scaled, settings)))
    except UnreadableImage as error:
        return Converted(item.name, unreadable=str(error))
    return Converted(
        item.name,
        digest,
        item.split or _split_at(digests, settings.validation_fraction),
        item.split is not None,
        item.label,
        item.text,
        tuple(images) if images else None,
        oddity=odd,
    )


def convert(
    task: Sequence[Item],
    description: Description,
    settings: DataSettings,
    known: Path | None,
    decided: Mapping[Kind, Range] | None = None,
) -> list[Converted]:
    """The samples of these items, in their order.

    Args:
        known: a file of digests, of DIGEST_BYTES each, whose images need no decoding.
        decided: the dataset's range of each kind of image of more than 8 bits; until it is known, such images are only
            measured.

    Raises:
        GanpipeError: an item's label is no class.
    """
    digests = _read_known(known) if known is not None else frozenset()
    with reading():
        return [_convert_item(item, description, settings, digests, decided) for item in task]


def conversion_key(settings: DataSettings, description: Description) -> str:
    """Names everything that decides a sample's PNGs beside its digest: settings, code, versions of the decoders."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(path.read_bytes() + b"\0")
    kept = settings.model_dump(
        mode="json", include={"image_size", "channels", "shape", "enlarge", "background", "value_range", "max_pixels"}
    )
    decoders = {name: features.version(name) for name in ("zlib", "jpg", "jpg_2000", "libtiff", "webp", "avif")}
    decoders["heif"] = heif_version()
    parts = [kept, description.image_fields, code.hexdigest(), PIL.__version__, imagecodecs.__version__, decoders]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
