"""From a source's item to a sample: read, known by its digest, decoded only where no earlier ingest has done so."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import PIL
from PIL import features

from ..errors import GanpipeError
from .images import UnreadableImage, encode_png, fit, flatten, heif_version
from .manifest import Split
from .settings import DataSettings
from .sources.base import Description, Item, reading

DIGEST_BYTES = 16


class Converted(NamedTuple):
    """A sample, or why its item could not be read.

    Attributes:
        digest: of its raw contents and how they are decoded: names the sample's images.
        images: PNGs in the order of the image fields; None where `digest` was known.
    """

    name: str
    digest: bytes = b""
    split: Split = "train"
    label: int | None = None
    text: str | None = None
    images: tuple[bytes, ...] | None = None
    unreadable: str | None = None


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


def _convert_item(item: Item, description: Description, settings: DataSettings, known: frozenset[bytes]) -> Converted:
    if "label" in description.fields and (item.label is None or not 0 <= item.label < len(description.classes)):
        raise GanpipeError(f"{item.name}: label {item.label}, but there are {len(description.classes)} classes")
    if "text" in description.fields and not _is_text(item.text):
        raise GanpipeError(f"{item.name}: text {item.text!r}; expected a text that UTF-8 can hold")
    references = [item.images[field] for field in description.image_fields]
    images: list[bytes] = []
    try:
        contents = [reference.read() for reference in references]
        digests = [hashlib.sha256(content).digest() for content in contents]
        digest = _sample_digest(digests, tuple(reference.decoding for reference in references))
        if digest not in known:
            for reference, content in zip(references, contents, strict=True):
                images.append(encode_png(fit(flatten(reference.decode(content, settings), settings), settings)))
    except UnreadableImage as error:
        return Converted(item.name, unreadable=str(error))
    return Converted(
        item.name,
        digest,
        item.split or _split_at(digests, settings.validation_fraction),
        item.label,
        item.text,
        tuple(images) if images else None,
    )


def convert(
    task: Sequence[Item], description: Description, settings: DataSettings, known: Path | None
) -> list[Converted]:
    """The samples of these items, in their order.

    Args:
        known: a file of digests, of DIGEST_BYTES each, whose images need no decoding.

    Raises:
        GanpipeError: an item's label is no class.
    """
    digests = _read_known(known) if known is not None else frozenset()
    with reading():
        return [_convert_item(item, description, settings, digests) for item in task]


def conversion_key(settings: DataSettings, description: Description) -> str:
    """Names everything that decides a sample's PNGs beside its digest: settings, code, versions of the decoders."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(path.read_bytes() + b"\0")
    kept = settings.model_dump(
        mode="json", include={"image_size", "channels", "shape", "enlarge", "background", "max_pixels"}
    )
    decoders = {name: features.version(name) for name in ("zlib", "jpg", "jpg_2000", "libtiff", "webp", "avif")}
    decoders["heif"] = heif_version()
    parts = [kept, description.image_fields, code.hexdigest(), PIL.__version__, imagecodecs.__version__, decoders]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
