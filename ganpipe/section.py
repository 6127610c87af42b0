"""The base class of every section of params.yaml, and the messages for values that are not valid.

A section is a frozen pydantic model that lives beside the code that uses it. The docstring under each field is its
documentation: it becomes the description in the JSON schema that editors show.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from numbers import Number
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, field_validator

from .errors import GanpipeError

SectionT = TypeVar("SectionT", bound="Section")


class Section(BaseModel):
    """Typed, immutable settings. Unknown keys, infinite numbers and values of another type are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="wrap")
    @classmethod
    def _of_its_kind(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        made = validate(value)
        _require_same_kind(value, made)
        return made


_YAML_1_1_TRUTH = {"yes", "no", "on", "off"}


def _require_same_kind(given: Any, made: Any) -> None:
    """Require that numbers were made from numbers only (100000.0 may become 100000), and booleans from booleans.

    Args:
        given: the value in params.yaml.
        made: what pydantic made of it.

    Raises:
        ValueError: pydantic converted a text to a number, or `true` to 1.
    """
    if isinstance(made, bool):
        if not (isinstance(given, bool) or (isinstance(given, str) and given.lower() in _YAML_1_1_TRUTH)):
            raise ValueError("expected true or false")
    elif isinstance(made, int | float):
        if isinstance(given, bool) or not isinstance(given, Number):  # `Number` also covers NumPy's numbers
            raise ValueError(f"expected a number, not {'true or false' if isinstance(given, bool) else 'a text'}")
    elif isinstance(made, tuple | list) and isinstance(given, tuple | list):
        for one, other in zip(given, made, strict=True):
            _require_same_kind(one, other)
    elif isinstance(made, dict) and isinstance(given, Mapping):
        for one, other in zip(given.values(), made.values(), strict=True):
            _require_same_kind(one, other)


_NUMBER = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?")


def _yaml_hint(value: Any, expected: str) -> str:
    """Which rule of YAML may have produced `value` instead of what was meant, and what to write; "" if none is known.

    Args:
        expected: what was expected, in the words of pydantic or a validator.
    """
    if value is None:
        return 'the value is null or missing: what follows a # is a comment, unless it is in quotes, as in "#7f7f7f"'
    if isinstance(value, int | float) and "valid string" in expected:
        return f'a text that looks like a number has to be in quotes, as in "{value}"'
    if not isinstance(value, str) or not ("number" in expected or "integer" in expected):
        return ""
    if re.fullmatch(r"[-+]?0[0-9_]+", value):
        return (
            "some programs read a number that begins with 0 as octal: leave the 0 out, or write 0o before octal digits"
        )
    if re.fullmatch(r"[-+]?[0-9]+(:[0-9]+)+", value):
        return "some programs read this to the base of 60: write the number out"
    if re.fullmatch(r"[-+]?[0-9]{1,3}(,[0-9]{3})+", value):
        return f"write it without commas: {value.replace(',', '')}"
    if _NUMBER.fullmatch(value):
        return f"write it without quotes: {value}"
    return ""


_MOST_FAULTS, _MOST_NAMES, _LONGEST_NAME, _LONGEST_VALUE = 20, 200, 100, 300
"""Limits of one message, so that input with many faults does not make it endless."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A clause for an error message: the valid name closest to `name`, or all valid names if none is close."""
    names = sorted(str(item)[:_LONGEST_NAME] for item in valid)
    # Both are cut, because the time of the comparison grows with the square of the lengths.
    close = difflib.get_close_matches(name[:_LONGEST_NAME], names[:_MOST_NAMES], n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return f"valid names: {', '.join(names[:_MOST_NAMES])}{more}" if names else "no name is valid here"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def _field_names(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The valid keys of the section in which an unknown key stands.

    Args:
        location: the path to the unknown key, as pydantic gives it; the last part is the key itself.
    """
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
    """One line per fault: dotted key, value, what was expected, nearest valid name.

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
            trap = _yaml_hint(fault["input"], expected)
            lines.append(f"{key}: got {got}; {expected[:1].lower()}{expected[1:]}" + (f" ({trap})" if trap else ""))
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
