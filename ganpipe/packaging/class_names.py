"""Classes as people name them: by number, or by the class name in the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import GanpipeError
from ..section import nearest


def class_names(description: Mapping[str, Any], field: str | None = None) -> tuple[str, ...]:
    """Names of the classes that a packaged generator takes, by class number; empty if its model.json holds no names, as
    in versions that were registered before names were kept.

    Args:
        description: the content of the package's model.json.
        field: name of the condition whose classes are meant; None for the first condition that is a class.
    """
    from .served_model import conditions_of

    labels = {
        name: spec
        for name, spec in conditions_of(description).items()
        if spec["kind"] == "label" and field in (None, name)
    }
    if not labels:
        return ()
    name, spec = next(iter(labels.items()))
    names, num_classes = description.get("names", {}).get(name, description.get("classes")), spec["num_classes"]
    if not isinstance(names, list) or len(names) != num_classes or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)


def class_number(text: str, num_classes: int, names: Sequence[str]) -> int:
    """The number of the class that `text` means. Digits are always the class number, even if the names of the classes
    are numbers, too.

    Raises:
        GanpipeError: there is no such class; the message says what is expected.
    """
    if text.isascii() and text.isdecimal() and len(text) < 20:
        if int(text) < num_classes:
            return int(text)
        raise GanpipeError(f"{text}: expected the number of a class, 0 to {num_classes - 1}")
    if text in names:
        return list(names).index(text)
    if not names:
        raise GanpipeError(
            f"{text[:100]!r}: expected the number of a class, 0 to {num_classes - 1}; this version does not hold the "
            "classes' names"
        )
    raise GanpipeError(f"there is no class {text[:100]!r}; {nearest(text, names)}")
