"""The names of all sources of images, for settings and stages that must not import the sources themselves."""

from __future__ import annotations

from pathlib import Path

from ..catalogue import file_names

_FOLDER = Path(__file__).with_name("sources")
_NOT_SOURCES = {
    "base",
    "files",
    "foreign_classes",
    "foreign_files",
    "imagefolder_metadata",
    "unicode_groups",
    "url_folder",
    "webdataset_samples",
}
"""Files of that folder that are not sources: the interface, and helpers of several sources."""


def names() -> list[str]:
    """The names of all sources, sorted. No source is imported."""
    return file_names([str(_FOLDER)], without=_NOT_SOURCES)
