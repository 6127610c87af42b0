"""Packages in which one file holds one class, known by the file's name: the GANs, the sources of images."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Iterable
from typing import TypeVar

from .errors import GanpipeError

ClassT = TypeVar("ClassT")


def file_names(paths: Iterable[str], without: Collection[str]) -> list[str]:
    """The names of the modules in a package's `__path__`, sorted; imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules(paths) if module.name not in without)


def only_class(module_name: str, base: type[ClassT], file: str) -> type[ClassT]:
    """The one subclass of `base` that a module defines.

    Args:
        file: how an error calls the module.

    Raises:
        GanpipeError: not exactly one.
    """
    module = importlib.import_module(module_name)
    found = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, base) and item.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise GanpipeError(f"{file} must define exactly one {base.__name__}, it defines {len(found)}")
    return found[0]
