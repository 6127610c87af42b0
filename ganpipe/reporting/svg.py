"""Drawing in SVG: elements with escaped text, axes with round numbers. Colours are classes of the style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

LOG_FROM_RATIO = 30.0
"""Positive numbers that span more than this factor are drawn on a logarithmic axis."""


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An SVG element. The attribute `class_` becomes `class`, `stroke_width` becomes `stroke-width`; attributes that
    are None are left out."""
    written = [
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), short(value))
        for key, value in attributes.items()
        if value is not None
    ]
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{}{}>{}</{}>").format(Markup(name), Markup("").join(written), inside, Markup(name))


def short(value: object) -> object:
    """A float with at most two decimals, which is precise enough for coordinates; other values unchanged."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def compact(value: float) -> str:
    """A number as axes show it: 40k, 1.2M, 0.0005, 3e-07."""
    size = abs(value)
    if size == 0:
        return "0"
    for unit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= 1e15 or (unit == 1e3 and size < 1e4 and value == int(value)):
            continue
        if size >= unit:
            return f"{value / unit:.4g}{suffix}"
    return f"{value:.4g}" if size >= 1e-4 else f"{value:.0e}".replace("e-0", "e-")


@dataclass(frozen=True)
class Scale:
    """Maps numbers to pixels, linearly or with `log` logarithmically."""

    low: float
    high: float
    start: float
    """Pixel of `low`."""
    stop: float
    """Pixel of `high`."""
    log: bool = False

    @classmethod
    def over(cls, values: Iterable[float], start: float, stop: float, log: bool | None = None) -> Scale:
        """A scale that contains all `values`, with a margin.

        Args:
            start, stop: pixels of the two ends.
            log: whether it is logarithmic; None to decide by LOG_FROM_RATIO. Always linear if a value is not positive.
        """
        found = list(values) or [0.0, 1.0]
        low, high = min(found), max(found)
        log = low > 0 and (high / low > LOG_FROM_RATIO if log is None else log)
        if log:
            margin = max((high / low) ** 0.04, 1.05)
            return cls(low / margin, high * margin, start, stop, True)
        margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
        return cls(low - margin, high + margin, start, stop)

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self, count: int) -> list[float]:
        """About `count` round numbers on the scale."""
        if self.log:
            return self._log_ticks(count)
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda size: abs(size - rough))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [float(f"{index * step:.12g}") for index in range(first, last + 1)]

    def _log_ticks(self, count: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
            found = [factor * 10.0**decade for decade in decades for factor in factors]
            inside = [float(f"{value:.3g}") for value in found if self.low <= value <= self.high]
            if len(inside) >= min(3, count):
                return inside[:: math.ceil(len(inside) / (2 * count))]
        return inside or [float(f"{self.low:.3g}")]


def axes(x: Scale, y: Scale, x_label: str, y_label: str, x_ticks: int = 4, y_ticks: int = 5) -> Markup:
    """Grid lines, numbers and labels of both axes. `y.start` is the bottom, `y.stop` the top."""
    parts = []
    for value in y.ticks(y_ticks):
        at = y(value)
        parts.append(tag("line", class_="grid", x1=x.start, x2=x.stop, y1=at, y2=at))
        parts.append(tag("text", compact(value), class_="tick", x=x.start - 6, y=at + 4, text_anchor="end"))
    taken = -math.inf
    for value in x.ticks(x_ticks):
        at, half = x(value), 3.6 * len(compact(value))
        if at - half < taken + 6:
            continue  # the number would overlap the one before it
        taken = at + half
        parts.append(tag("line", class_="grid", x1=at, x2=at, y1=y.start, y2=y.stop))
        parts.append(tag("text", compact(value), class_="tick", x=at, y=y.start + 16, text_anchor="middle"))
    parts.append(tag("line", class_="axis", x1=x.start, x2=x.stop, y1=y.start, y2=y.start))
    middle = (x.start + x.stop) / 2
    parts.append(tag("text", x_label, class_="name", x=middle, y=y.start + 34, text_anchor="middle"))
    if y_label:
        parts.append(tag("text", y_label, class_="name", x=x.start - 46, y=y.stop - 12, text_anchor="start"))
    return Markup("").join(parts)


def thinned(points: list[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """At most about `most` of the points, which draw the same line: the lowest and the highest of each interval."""
    if len(points) <= most:
        return points
    size = math.ceil(2 * len(points) / most)
    kept = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        ends = {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
        kept += sorted(ends)
    return [points[0], *(point for point in kept if point not in (points[0], points[-1])), points[-1]]
