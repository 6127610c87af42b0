"""Files under a folder: which there are, their names as text, and whether any has changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .images import extensions


def is_image(name: str) -> bool:
    """Whether a file's name ends like an image's that is decoded here."""
    return os.path.splitext(name)[1].lower() in extensions()


def walk(folder: Path, wanted: Callable[[str], bool] = is_image) -> Iterator[tuple[str, ...]]:
    """Files under `folder` whose names are wanted, as path parts, in the order of their parts.

    Hidden files and folders are left out. Links are followed, each folder once a way.

    Raises:
        OSError: a folder cannot be listed.
    """

    def visit(directory: Path, parts: tuple[str, ...], above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, ...]]:
        status = directory.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:  # a link to a folder that holds it
            return
        with os.scandir(directory) as entries:
            ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        for entry in ordered:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                yield from visit(directory / entry.name, (*parts, entry.name), above | {here})
            elif wanted(entry.name):
                yield (*parts, entry.name)

    return visit(folder, (), frozenset())


def printable(name: str) -> str:
    """The name as valid Unicode on one line: bytes that are not UTF-8, and what steers a terminal, are escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def digest_of(entries: Iterable[Any]) -> str:
    """SHA-256 over values that JSON knows, in their order."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(json.dumps(entry).encode() + b"\n")
    return digest.hexdigest()


def fingerprint(paths: Iterable[Path]) -> str:
    """Changes when one of these files is added, removed, or has another size or time of change."""

    def entries() -> Iterator[list[str | int]]:
        for path in paths:
            try:
                status = path.stat()
                yield [printable(str(path)), status.st_size, status.st_mtime_ns]
            except FileNotFoundError:  # gone since it was listed, or a link to nothing
                yield [printable(str(path)), -1]

    return digest_of(entries())
