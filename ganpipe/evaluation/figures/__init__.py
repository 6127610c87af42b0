"""The figures of an evaluation: one file each, known by the file's name, which is also the picture's. `base.py` is the
interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...catalogue import file_names, only_class
from ...errors import GanpipeError
from ...section import nearest

if TYPE_CHECKING:
    from .base import Figure

FOLDER = "figures"
"""In the evaluation's folder: where they lie."""
_NOT_FIGURES = {"base"}


def names() -> list[str]:
    """The names of all figures, sorted; imports none of them."""
    return file_names(__path__, without=_NOT_FIGURES)


def load(name: str) -> type[Figure]:
    """The figure in the file `name`.py.

    Raises:
        GanpipeError: no such file, or not exactly one figure in it.
    """
    from .base import Figure

    if name not in names():
        raise GanpipeError(f"there is no figure named {name!r}; {nearest(name, names())}")
    return only_class(f"{__name__}.{name}", Figure, f"ganpipe/evaluation/figures/{name}.py")  # type: ignore[type-abstract]
