"""Sources of images: one file per kind of source. `base.py` is the interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...catalogue import only_class
from ...errors import GanpipeError
from ...section import nearest
from ..source_names import names

if TYPE_CHECKING:
    from .base import Source

__all__ = ["load", "names"]


def load(name: str) -> type[Source]:
    """The source class in the file `name`.py.

    Raises:
        GanpipeError: there is no such file, or it does not hold exactly one source.
    """
    from .base import Source

    if name not in names():
        raise GanpipeError(f"data.source: there is no source named {name!r}; {nearest(name, names())}")
    return only_class(f"{__name__}.{name}", Source, f"ganpipe/data/sources/{name}.py")  # type: ignore[type-abstract]
