"""Classes of data that others wrote: named or numbered by a setting, or found among the labels themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

from ...errors import GanpipeError
from ...fields import MAX_CLASSES
from ...section import nearest

_LONGEST_CLASS = 200


def _make_sense(value: tuple[str, ...] | int | None) -> tuple[str, ...] | int | None:
    if isinstance(value, int) and not 1 <= value <= MAX_CLASSES:
        raise ValueError(f"expected a number from 1 to {MAX_CLASSES:,}, or names")
    if isinstance(value, tuple) and (not value or len(set(value)) != len(value)):
        raise ValueError("expected names that differ from each other")
    return value


GivenClasses = Annotated[tuple[str, ...] | int | None, AfterValidator(_make_sense)]
"""Names of the classes, their number, or None."""


def class_name(value: Any, where: str, what: str) -> str:
    """A sample's class, a number or a name, as text.

    Args:
        where: the sample, for messages.
        what: what holds the class: a member or a column.

    Raises:
        GanpipeError: it is no class.
    """
    name = value.strip() if isinstance(value, str) else str(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or not name:
        raise GanpipeError(f"{where}: {what} is {value!r}; expected a class: its number or name")
    if len(name) > _LONGEST_CLASS:
        raise GanpipeError(
            f"{where}: {what} has {len(name):,} characters; the name of a class may have {_LONGEST_CLASS}"
        )
    return name


def class_number(name: str, numbers: Mapping[str, int], where: str, what: str) -> int:
    """The number of the class `name`, which may be a number itself.

    Raises:
        GanpipeError: there is no such class.
    """
    if name in numbers:
        return numbers[name]
    if name.isdecimal() and int(name) < len(numbers):
        return int(name)
    raise GanpipeError(
        f"{where}: {what} is {name!r}, which is none of the {len(numbers)} classes; {nearest(name, numbers)}"
    )


def classes_among(names: Iterable[tuple[str, str]], setting: str) -> tuple[str, ...]:
    """The classes by number, found among all labels: if all are numbers, every number up to the largest; else the
    sorted names.

    Args:
        names: (file, name of a class) of each sample.
        setting: what names the labels, for messages.

    Raises:
        GanpipeError: there are too many classes.
    """
    found: set[str] = set()
    for file, name in names:
        found.add(name)
        if len(found) > MAX_CLASSES:
            raise GanpipeError(f"{file}: {setting} makes more than {MAX_CLASSES:,} classes")
    known: Sequence[str] = sorted(found)
    if known and all(name.isdecimal() for name in known):
        largest = max(map(int, known))
        if largest < MAX_CLASSES:
            return tuple(map(str, range(largest + 1)))
    return tuple(known)
