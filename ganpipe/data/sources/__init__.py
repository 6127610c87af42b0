"""Sources of images: one file a kind of place. `base.py` is the interface."""

from __future__ import annotations

import importlib
import pkgutil

from ...errors import GanpipeError
from ...section import nearest
from .base import Source

_NOT_SOURCES = {"base"}


def names() -> list[str]:
    """The names of all sources, sorted; imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NOT_SOURCES)


def load(name: str) -> type[Source]:
    """The source class in the file `name`.py.

    Raises:
        GanpipeError: no such file, or not exactly one source in it.
    """
    if name not in names():
        raise GanpipeError(f"data.source: there is no source named {name!r}; {nearest(name, names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Source) and item.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise GanpipeError(f"ganpipe/data/sources/{name}.py must define exactly one Source, it defines {len(found)}")
    return found[0]
