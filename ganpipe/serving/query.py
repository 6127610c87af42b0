"""The parameters of an address: checked, and turned into rows for the model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import GanpipeError
from ..fields import Fields, Frames, Label, Number, Picture, Tokens
from ..packaging.class_names import class_number
from ..section import nearest
from ..words import knows_a_word, words_like, words_of

MAX_SEED = 2**53 - 1
"""The largest integer that every JSON client represents exactly; the registered model itself accepts larger seeds."""
RESERVED = ("seed", "truncation", "to_seed", "mix", "count", "format", "direction")
"""Parameters that are the same for every GAN; no condition may have one of these names."""


@dataclass(frozen=True)
class Capabilities:
    """What a registered version can be asked for.

    Attributes:
        truncation: the version takes the column `truncation`.
        interpolation: the version makes images between two seeds. Versions that were registered before the columns
            `to_seed` and `mix` existed do not.
        conditions: the conditions that are not pictures, by name.
        names: names of classes and words, by condition and number; empty if the version does not hold them.
        pictures: direction -> name and kind of the condition that takes the picture. Empty for a GAN that takes no
            picture; a single direction has the name ''.
        mask: name of the condition that says which part of the picture is missing; empty if there is none. What is
            transparent in the picture that is sent is missing.
    """

    truncation: bool
    interpolation: bool
    conditions: Fields = field(default_factory=dict)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pictures: Mapping[str, tuple[str, Picture | Frames]] = field(default_factory=dict)
    mask: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The parameters that the version takes."""
        ways = ("to_seed", "mix") if self.interpolation else ()
        return ("seed", *self.conditions, *(("truncation",) if self.truncation else ()), *ways)

    @property
    def directions(self) -> list[str]:
        """The names of the directions; empty if there is only one."""
        return [name for name in self.pictures if name]

    @property
    def label(self) -> str | None:
        """The name of the first condition that is a class; None if there is none."""
        return next((name for name, spec in self.conditions.items() if isinstance(spec, Label)), None)

    def example(self) -> dict[str, Any]:
        """Example values for the conditions that are not drawn from the seed if they are left out: texts."""
        texts = [name for name, spec in self.conditions.items() if isinstance(spec, Tokens)]
        return {name: next(iter(self.names.get(name, ())), "a") for name in texts}


@dataclass(frozen=True)
class Row:
    """One image: the columns of the registered model.

    Attributes:
        given: (name, value) of conditions, in the order of the version's conditions; the others are drawn from the
            seed.
        to_seed, mix: for an image between two seeds; None and 0 for an image of `seed`.
        pictures: of the picture that was sent, and its mask if the version takes one: the condition's name, and a PNG
            file.
    """

    seed: int
    given: tuple[tuple[str, Any], ...] = ()
    truncation: float = 1.0
    to_seed: int | None = None
    mix: float = 0.0
    pictures: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Query:
    """What an address asks for: `count` images, of `seed`, `seed` + 1, …; or one image between two seeds."""

    row: Row
    count: int = 1
    format: Literal["png", "json"] = "png"
    direction: str = ""

    @property
    def rows(self) -> list[Row]:
        """One row per image. At mix 0 and 1, it is the row of the one or the other seed."""
        row = self.row
        if row.to_seed is not None:
            ends = {0.0: row.seed, 1.0: row.to_seed}
            return [Row(ends[row.mix], row.given, row.truncation) if row.mix in ends else row]
        return [Row(row.seed + index, row.given, row.truncation) for index in range(self.count)]


class BadQuery(GanpipeError):
    """A parameter that is unknown, missing or out of range; the message names it and what was expected."""


def parse(items: Iterable[tuple[str, str]], capabilities: Capabilities, max_count: int) -> Query:
    """The query of `/api/images`.

    Args:
        items: name and value of each parameter, as sent.
        max_count: how many images a request may ask for.

    Raises:
        BadQuery: a parameter is wrong.
    """
    values = _named(items, [*capabilities.columns, "count", "format"], capabilities)
    seed = _integer(values, "seed", MAX_SEED)
    if seed is None:
        raise BadQuery(f"seed is missing, expected an integer from 0 to {MAX_SEED}")
    given = _given(values, capabilities)
    truncation = _number(values, "truncation", above_zero=True)
    to_seed, mix = _integer(values, "to_seed", MAX_SEED), _number(values, "mix", above_zero=False)
    if (to_seed is None) != (mix is None):
        raise BadQuery("to_seed and mix belong together; give both or neither")
    count = _integer(values, "count", max_count, low=1)
    if count is not None and count > 1 and to_seed is not None:
        raise BadQuery(f"count is {count}, expected 1 between two seeds")
    if seed + (count or 1) - 1 > MAX_SEED:
        raise BadQuery(f"seed + count is too large, expected seeds up to {MAX_SEED}")
    form = values.get("format", "png")
    if form not in ("png", "json"):
        raise BadQuery(f"format is {_short(form)}, expected 'png' or 'json'")
    row = Row(seed, given, 1.0 if truncation is None else truncation, to_seed, mix or 0.0)
    return Query(row, count or 1, "json" if form == "json" else "png")


def parse_translation(items: Iterable[tuple[str, str]], capabilities: Capabilities) -> Query:
    """The query of `/api/translate`. The picture is not part of it, because it is in the request's body.

    Raises:
        BadQuery: a parameter is wrong.
    """
    known = [name for name in capabilities.columns if name not in ("to_seed", "mix")]
    values = _named(items, [*known, *(["direction"] if capabilities.directions else [])], capabilities)
    direction = values.get("direction", next(iter(capabilities.pictures)))
    if direction not in capabilities.pictures:
        raise BadQuery(f"direction is {_short(direction)}, expected {' or '.join(capabilities.directions)}")
    truncation = _number(values, "truncation", above_zero=True)
    seed = _integer(values, "seed", MAX_SEED)
    row = Row(seed or 0, _given(values, capabilities), 1.0 if truncation is None else truncation)
    return Query(row, direction=direction)


def _given(values: dict[str, str], capabilities: Capabilities) -> tuple[tuple[str, Any], ...]:
    """The conditions among the parameters."""
    found: list[tuple[str, Any]] = []
    for name, spec in capabilities.conditions.items():
        text = values.get(name)
        if isinstance(spec, Tokens):
            found.append((name, _text(name, text, spec, capabilities.names.get(name, ()))))
        elif text is not None and isinstance(spec, Label):
            found.append((name, _class(name, text, spec, capabilities.names.get(name, ()))))
        elif text is not None and isinstance(spec, Number):
            found.append((name, _between(name, text, spec)))
    return tuple(found)


def _class(name: str, text: str, spec: Label, names: Sequence[str]) -> int:
    """The number of a class that is given by number or by name."""
    if names and not text.isdecimal():
        try:
            return class_number(text, len(names), names)
        except GanpipeError as error:
            raise BadQuery(f"{name}: {error}") from None
    number = _integer({name: text}, name, spec.num_classes - 1)
    assert number is not None
    return number


def _text(name: str, text: str | None, spec: Tokens, known: Sequence[str]) -> str:
    expected = f"expected 1 to {spec.length} words"
    if text is None:
        raise BadQuery(f"{name} is missing, {expected}")
    if not 1 <= len(words_of(text)) <= spec.length:
        raise BadQuery(f"{name} is {_short(text)}, {expected}")
    if not knows_a_word(text, known):
        hint = nearest(words_of(text)[0], words_like(text, known))
        raise BadQuery(f"{name} is {_short(text)}, of which the model knows no word; {hint}")
    return text


def _between(name: str, text: str, spec: Number) -> float:
    value = float(text) if re.fullmatch(r"-?[0-9]{0,9}\.?[0-9]{1,20}(e-[0-9]{1,3})?", text) else math.nan
    if not spec.low <= value <= spec.high:
        raise BadQuery(f"{name} is {_short(text)}, expected {spec.text}")
    return value


def _named(items: Iterable[tuple[str, str]], known: list[str], capabilities: Capabilities) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in items:
        if name in values:
            raise BadQuery(f"{name} is given twice, expected once")
        if name not in known:
            if name == Label.main_name:
                raise BadQuery("label: this model takes no labels; leave it out")
            if name in RESERVED:
                raise BadQuery(f"{name}: this version of the model does not take it; leave it out")
            raise BadQuery(f"unknown parameter {_short(name)}; {nearest(name[:40], known)}")
        values[name] = value
    return values


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def _integer(values: dict[str, str], name: str, high: int, low: int = 0) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,20}", text) or not low <= int(text) <= high:
        raise BadQuery(f"{name} is {_short(text)}, expected an integer from {low} to {high}")
    return int(text)


def _number(values: dict[str, str], name: str, above_zero: bool) -> float | None:
    text = values.get(name)
    if text is None:
        return None
    decimal = re.fullmatch(r"[0-9]{0,4}\.?[0-9]{1,20}|[0-9]{1,4}\.", text)
    value = float(text) if decimal else math.nan
    if not 0 <= value <= 1 or (above_zero and value == 0):
        expected = "a number above 0 and at most 1" if above_zero else "a number from 0 to 1"
        raise BadQuery(f"{name} is {_short(text)}, expected {expected}")
    return value
