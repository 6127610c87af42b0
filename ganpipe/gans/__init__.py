"""The GANs: one file a paper. A GAN's name is its file's name, its key under `gans:` in params.yaml, and its name in
the registry. `base.py` is the interface."""

from __future__ import annotations

import importlib
import pkgutil

from ..errors import GanpipeError
from ..section import nearest
from .base import Gan

_NOT_GANS = {"base", "draws"}


def names() -> list[str]:
    """The names of all GANs, sorted; imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NOT_GANS)


def load(name: str) -> type[Gan]:
    """The GAN class in the file `name`.py.

    Raises:
        GanpipeError: no such file, or not exactly one GAN in it.
    """
    if name not in names():
        raise GanpipeError(f"train.gan: there is no GAN named {name!r}; {nearest(name, names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Gan) and item.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise GanpipeError(f"ganpipe/gans/{name}.py must define exactly one Gan, it defines {len(found)}")
    return found[0]
