"""The common base of every section of params.yaml, and how its errors read.

A section is a frozen pydantic model that lives beside the code that uses it. The docstring under each field is its
documentation: it becomes the description in the JSON schema that editors show.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import GanpipeError

SectionT = TypeVar("SectionT", bound="Section")


class Section(BaseModel):
    """Typed settings: unknown keys refused, values not silently converted between kinds, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)


_MOST_FAULTS, _MOST_NAMES, _LONGEST_NAME, _LONGEST_VALUE = 20, 200, 100, 300
"""What one message shows: input that is wrong throughout shall not make it endless."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A clause naming the valid name closest to `name`, or all of them where none is close."""
    names = sorted(str(item)[:_LONGEST_NAME] for item in valid)
    # The comparison takes time in the square of the lengths.
    close = difflib.get_close_matches(name[:_LONGEST_NAME], names[:_MOST_NAMES], n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return f"valid names: {', '.join(names[:_MOST_NAMES])}{more}" if names else "no name is valid here"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def _field_names(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The valid keys of the innermost section on the way to `location` (its last part being the unknown key)."""
    current: Any = model
    for part in location[:-1]:
        field = (
            current.model_fields.get(str(part))
            if isinstance(current, type) and issubclass(current, BaseModel)
            else None
        )
        candidates = _models_in(field.annotation) if field is not None else _models_in(current)
        if not candidates:
            return []
        current = candidates[0]
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found: list[type[BaseModel]] = []
    for argument in getattr(annotation, "__args__", ()):
        found.extend(_models_in(argument))
    return found


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """One line a fault: dotted key, value, what was expected, nearest valid name.

    Args:
        error: what pydantic raised.
        model: the section that was validated.
        prefix: dotted key of that section in params.yaml.
    """
    lines = []
    faults = error.errors(include_url=False)
    for fault in faults[:_MOST_FAULTS]:
        location = fault["loc"]
        parts = ([prefix] if prefix else []) + list(location)
        key = ".".join(_short(str(part), _LONGEST_NAME) for part in parts) or "the section"
        if fault["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key; {nearest(str(location[-1]), _field_names(model, location))}")
        elif fault["type"] == "missing":
            lines.append(f"{key}: missing; it has no default")
        else:
            expected = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            got = _short(repr(fault["input"]), _LONGEST_VALUE)
            lines.append(f"{key}: got {got}; {expected[:1].lower()}{expected[1:]}")
    if len(faults) > _MOST_FAULTS:
        lines.append(f"and {len(faults) - _MOST_FAULTS:,} more")
    return "\n".join(lines)


def parse(model: type[SectionT], values: Mapping[str, Any], prefix: str, origin: str = "params.yaml") -> SectionT:
    """Validate `values` as `model`.

    Raises:
        GanpipeError: naming `origin`, the dotted key, the value and what was expected.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise GanpipeError(f"{origin}: {explain(error, model, prefix)}") from None
