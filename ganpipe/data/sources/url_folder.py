"""A folder at a URL: the list of its files, and images that are read from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import GanpipeError, UnavailableError
from ...redaction import expand_variables
from ..access.retrying import with_retries
from ..images.decoding import UnreadableImage
from .base import ImageFile
from .files import Parts
from .foreign_files import ForeignFile, filesystem_of, naming_errors, open_foreign

_MAX_IMAGE_BYTES = 2**30


@dataclass(frozen=True)
class ImageAtUrl(ImageFile):
    """An image file at a URL."""

    file: ForeignFile

    def read(self) -> bytes:
        try:
            with (
                naming_errors(self.file, lambda: "at all", "run the same command again"),
                open_foreign(self.file) as it,
            ):
                content = it.read(_MAX_IMAGE_BYTES + 1)
        except UnavailableError:
            raise
        except GanpipeError as error:
            raise UnreadableImage(str(error)) from None
        if len(content) > _MAX_IMAGE_BYTES:
            raise UnreadableImage(f"more than {_MAX_IMAGE_BYTES:,} bytes")
        return content

    @property
    def is_remote(self) -> bool:
        return True


def file_in(url: str, parts: Parts, setting: str) -> ForeignFile:
    """The file with this path in the folder `url`, which the setting names."""
    return ForeignFile("/".join((url.rstrip("/"), *parts)), setting)


def listing(url: str, setting: str) -> dict[Parts, Mapping[str, Any]]:
    """What the storage tells of each file below the folder `url`, by its path there, sorted; nothing that is hidden.

    Raises:
        GanpipeError: the URL is of a kind that lists no files, or there is no such folder.
        UnavailableError: the storage does not answer.
    """
    folder = ForeignFile(url.rstrip("/"), setting)
    if url.startswith(("http://", "https://")):
        raise GanpipeError(f"{setting}: {folder.name}: a web server does not list its files; use s3://, gs://, ...")
    filesystem = filesystem_of(folder)
    filesystem.invalidate_cache()
    with naming_errors(folder, lambda: "as a folder", "try again later"):
        root = filesystem._strip_protocol(expand_variables(folder.url, setting))
        found = with_retries(folder.name, lambda: filesystem.find(root, detail=True))
    by_parts = {tuple(path.removeprefix(f"{root}/").split("/")): about for path, about in found.items()}
    shown = {
        parts: about
        for parts, about in sorted(by_parts.items())
        if not any(part.startswith(".") or part == "__MACOSX" for part in parts)
    }
    if not shown:
        raise GanpipeError(f"{setting}: {folder.name} does not exist, or has no file")
    return shown
