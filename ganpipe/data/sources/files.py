"""Files under a folder: the list of them, their names as text, and a digest that changes when one of them changes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..images.decoding import NUM_FIRST_BYTES, begins_as_image, extensions
from ..shards.left_out import BROKEN_LINK, HIDDEN, NO_EXTENSION, Tally

_EXTENSION = re.compile(r"\.(?!\d*$)[a-z0-9_+-]{1,10}")
_LEFT_BY_FILE_MANAGERS = {"thumbs.db", "ehthumbs.db", "desktop.ini"}
Parts = tuple[str, ...]


def is_image(name: str) -> bool:
    """Whether a file's name has the extension of an image format that is decoded here."""
    return os.path.splitext(name)[1].lower() in extensions()


def extension_of(name: str) -> str:
    """The name's extension in lower case, with its dot; empty if its last dot does not begin one (`photo.0001`)."""
    extension = os.path.splitext(name)[1].lower()
    return extension if extension in extensions() or _EXTENSION.fullmatch(extension) else ""


def may_be_image(name: str) -> bool:
    """Whether a file has an image's extension, or no extension, so that only its content can tell."""
    return is_image(name) or not extension_of(name)


def walk(
    folder: Path, wanted: Callable[[str], bool] = may_be_image, left_out: Tally | None = None
) -> Iterator[tuple[str, ...]]:
    """Files under `folder` whose names are wanted, as the parts of their paths below it, sorted by these parts.

    Hidden files and folders are left out. Links are followed, except a link to a folder that contains it.

    Args:
        wanted: whether a file is wanted, by its name.
        left_out: counts the files that are not wanted, and hidden images; file managers' own files are not counted.

    Raises:
        OSError: a folder cannot be listed.
    """

    def visit(directory: Path, parts: Parts, above: frozenset[tuple[int, int]]) -> Iterator[Parts]:
        status = directory.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:  # a link to a folder that contains it
            return
        with os.scandir(directory) as entries:
            ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        for entry in ordered:
            found = (*parts, entry.name)
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                if left_out is not None and is_image(entry.name):
                    left_out.add(HIDDEN, display_path(found))
            elif entry.is_dir():
                yield from visit(directory / entry.name, found, above | {here})
            elif wanted(entry.name):
                yield found
            elif left_out is not None and entry.name.lower() not in _LEFT_BY_FILE_MANAGERS:
                left_out.add(_kind_of(entry), display_path(found))

    return visit(folder, (), frozenset())


def images_among(folder: Path, files: Iterable[Parts], left_out: Tally) -> Iterator[Parts]:
    """Those of `files` that are images: by their extension, or by their content if they have no extension.

    Args:
        files: paths below `folder`.
        left_out: counts the others.
    """
    for parts in files:
        if is_image(parts[-1]) or begins_as_image(_first_bytes(folder.joinpath(*parts))):
            yield parts
        else:
            broken = not folder.joinpath(*parts).exists()
            left_out.add(BROKEN_LINK if broken else NO_EXTENSION, display_path(parts))


def _kind_of(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink() and not os.path.exists(entry.path):
        return BROKEN_LINK
    return extension_of(entry.name) or NO_EXTENSION


def _first_bytes(path: Path) -> bytes:
    """The first bytes of a regular file; empty if it cannot be read or is not a regular file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return b""
        with path.open("rb", buffering=0) as file:
            return file.read(NUM_FIRST_BYTES)
    except OSError:
        return b""


def display_path(parts: Parts) -> str:
    """A file's path as it is written in messages and manifests."""
    return printable("/".join(parts))


def printable(name: str) -> str:
    """The name as valid Unicode on one line: bytes that are not UTF-8, and control characters, are escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def digest_of(entries: Iterable[Any]) -> str:
    """SHA-256, 64 hex digits, of values that JSON can hold, in their order."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(json.dumps(entry).encode() + b"\n")
    return digest.hexdigest()


def fingerprint(paths: Iterable[Path]) -> str:
    """A digest that changes when one of these files is added, removed, or has another size or modification time."""

    def entries() -> Iterator[list[str | int]]:
        for path in paths:
            try:
                status = path.stat()
                yield [printable(str(path)), status.st_size, status.st_mtime_ns]
            except FileNotFoundError:  # gone since it was listed, or a link to nothing
                yield [printable(str(path)), -1]

    return digest_of(entries())
