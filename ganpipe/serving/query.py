"""What may be asked for: the parameters of an address, checked, as rows for the model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..errors import GanpipeError
from ..registry.class_names import class_number
from ..section import nearest

MAX_SEED = 2**53 - 1
"""The largest whole number that every JSON client keeps; the registered model itself takes more."""
_COLUMNS = ("seed", "label", "truncation", "to_seed", "mix")


@dataclass(frozen=True)
class Abilities:
    """What a registered version can be asked for.

    Attributes:
        num_labels: None for a GAN without labels.
        classes: names of the labels, by number; empty where the version does not hold them.
        truncation: latents can be pulled towards their mean.
        interpolation: there are images between two seeds; versions registered before the columns `to_seed` and `mix`
            were there lack it.
    """

    num_labels: int | None
    truncation: bool
    interpolation: bool
    classes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The parameters it takes."""
        wanted = {"seed": True, "label": self.num_labels is not None, "truncation": self.truncation}
        wanted |= {"to_seed": self.interpolation, "mix": self.interpolation}
        return tuple(name for name in _COLUMNS if wanted[name])


@dataclass(frozen=True)
class Row:
    """One image: the columns of the registered model. `to_seed` is None where `mix` is 0."""

    seed: int
    label: int | None = None
    truncation: float = 1.0
    to_seed: int | None = None
    mix: float = 0.0


@dataclass(frozen=True)
class Query:
    """What an address asks for. The images are those of `seed`, `seed` + 1, …; between two seeds there is one."""

    row: Row
    count: int = 1
    format: Literal["png", "json"] = "png"

    @property
    def rows(self) -> list[Row]:
        """One an image. At mix 1 the row is that of the other seed."""
        row = self.row
        if row.to_seed is not None:
            ends = {0.0: row.seed, 1.0: row.to_seed}
            return [Row(ends[row.mix], row.label, row.truncation) if row.mix in ends else row]
        return [Row(row.seed + index, row.label, row.truncation) for index in range(self.count)]


class BadQuery(GanpipeError):
    """A parameter that is unknown, missing or out of range; the message names it and what was expected."""


def parse(items: Iterable[tuple[str, str]], can: Abilities, max_count: int) -> Query:
    """The query of `/api/images`.

    Args:
        items: name and value of each parameter, as sent.
        max_count: images a request may ask for.

    Raises:
        BadQuery: see there.
    """
    known = [*can.columns, "count", "format"]
    values = _named(items, known, can)
    seed = _integer(values, "seed", MAX_SEED)
    if seed is None:
        raise BadQuery(f"seed is missing, expected an integer from 0 to {MAX_SEED}")
    label = _label(values, can)
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
    row = Row(seed, label, 1.0 if truncation is None else truncation, to_seed, mix or 0.0)
    return Query(row, count or 1, "json" if form == "json" else "png")


def _label(values: dict[str, str], can: Abilities) -> int | None:
    """By number, or by name."""
    text = values.get("label")
    if text is not None and can.classes and not text.isdecimal():
        try:
            return class_number(text, len(can.classes), can.classes)
        except GanpipeError as error:
            raise BadQuery(f"label: {error}") from None
    return _integer(values, "label", (can.num_labels or 1) - 1)


def _named(items: Iterable[tuple[str, str]], known: list[str], can: Abilities) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in items:
        if name in values:
            raise BadQuery(f"{name} is given twice, expected once")
        if name not in known:
            if name == "label":
                raise BadQuery("label: this model takes no labels; leave it out")
            if name in _COLUMNS:
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
