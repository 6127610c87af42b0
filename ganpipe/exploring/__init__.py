"""Explorations of a generator's latents: one file each, known by the file's name. `base.py` is the interface."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..catalogue import file_names, only_class
from ..errors import GanpipeError
from ..section import nearest

if TYPE_CHECKING:
    from .base import Exploration

FOLDER = Path("artifacts/explore")
"""Where a checkout keeps its explorations, in a folder of the kind's name: the output of no stage, ignored by git."""
ABOUT = "about.json"
"""Beside the pictures: which model was explored, and with which options."""
_NOT_EXPLORATIONS = {"base", "choosing", "explored", "latents"}


def names() -> list[str]:
    """The names of all explorations, sorted; imports none of them."""
    return file_names(__path__, without=_NOT_EXPLORATIONS)


def load(name: str) -> type[Exploration]:
    """The exploration in the file `name`.py.

    Raises:
        GanpipeError: no such file, or not exactly one exploration in it.
    """
    from .base import Exploration

    if name not in names():
        raise GanpipeError(f"there is no exploration named {name!r}; {nearest(name, names())}")
    return only_class(f"{__name__}.{name}", Exploration, f"ganpipe/exploring/{name}.py")  # type: ignore[type-abstract]
