"""Line, bar and scatter plots as SVG, each with a text that describes it for screen readers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .contents import Curve
from .svg import Scale, axes, compact, short, tag, thinned

WIDTH, HEIGHT = 440, 270
SMALL_WIDTH, SMALL_HEIGHT = 340, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 26, 44
NUM_COLOURS = 6
"""Style classes c0 to c5. A seventh line has the colour of the first line and another dash pattern."""


@dataclass(frozen=True)
class Dot:
    """A point of a scatter plot.

    Attributes:
        text: description, shown under the pointer.
        marked: drawn as a star.
        hollow: drawn as a ring.
    """

    x: float
    y: float
    text: str
    marked: bool = False
    hollow: bool = False


def line_chart(curves: Sequence[Curve], x_label: str, y_label: str, dots: bool = False) -> Markup:
    """A line plot whose x axis begins at 0.

    Args:
        curves: one line each; the order decides the colours.
        dots: mark every point.
    """
    lines = [thinned(list(curve.points)) for curve in curves]
    x = Scale.over([0.0, *(at for line in lines for at, _ in line)], LEFT, WIDTH - RIGHT, log=False)
    y = Scale.over((value for line in lines for _, value in line), HEIGHT - BOTTOM, TOP)
    parts = [axes(x, y, x_label, y_label + (" (log)" if y.log else ""))]
    for index, line in enumerate(lines):
        path = " ".join(f"{short(x(at))},{short(y(value))}" for at, value in line)
        parts.append(tag("polyline", class_=f"line {colour(index)}", points=path))
        if dots or len(line) == 1:
            parts += [tag("circle", class_=f"dot {colour(index)}", cx=x(at), cy=y(v), r=3.5) for at, v in line]
    # For the page's script, which shows the numbers under the pointer.
    data = [
        {"name": c.name, "points": [[a, v, short(x(a)), short(y(v))] for a, v in li]}
        for c, li in zip(curves, lines, strict=True)
    ]
    return _figure(
        parts, "; ".join(map(_told, curves)), data_lines=json.dumps(data), data_plot=f"{TOP} {HEIGHT - BOTTOM}"
    )


def _told(curve: Curve) -> str:
    (first, start), (last, end) = curve.points[0], curve.points[-1]
    values = [value for _, value in curve.points]
    return (
        f"{curve.name} from {compact(start)} at {compact(first)} to {compact(end)} at {compact(last)} images, "
        f"lowest {compact(min(values))}, highest {compact(max(values))}"
    )


def colour(index: int) -> str:
    """Style classes (colour and dash pattern) of the line number `index`."""
    return f"c{index % NUM_COLOURS} d{index // NUM_COLOURS % 3}"


def scatter(dots: Sequence[Dot], x_label: str, y_label: str, log_x: bool = False) -> Markup:
    """A scatter plot; marked points are stars and are drawn on top."""
    x = Scale.over((dot.x for dot in dots), LEFT, SMALL_WIDTH - RIGHT, log=log_x)
    y = Scale.over((dot.y for dot in dots), SMALL_HEIGHT - BOTTOM, TOP)
    parts = [axes(x, y, x_label + (" (log)" if x.log else ""), y_label + (" (log)" if y.log else ""))]
    for dot in sorted(dots, key=lambda dot: dot.marked):
        title = tag("title", dot.text)
        if dot.marked:
            parts.append(tag("path", title, class_="best", d=_star(x(dot.x), y(dot.y), 10.0)))
        else:
            parts.append(tag("circle", title, class_=f"dot c0{' hollow' * dot.hollow}", cx=x(dot.x), cy=y(dot.y), r=5))
    return _figure(parts, "; ".join(dot.text for dot in dots[:40]), SMALL_WIDTH, SMALL_HEIGHT)


def _star(x: float, y: float, size: float) -> str:
    turns = ((0, -1), (0.22, -0.31), (0.95, -0.31), (0.36, 0.12), (0.59, 0.81), (0, 0.38))
    mirrored = [*turns, *((-a, b) for a, b in reversed(turns[1:-1]))]
    return "M" + "L".join(f"{short(x + a * size)} {short(y + b * size)}" for a, b in mirrored) + "Z"


def bars(rows: Sequence[tuple[str, float]], x_label: str) -> Markup:
    """Horizontal bars from zero, one per row, in the order of `rows`, which hold (name, value)."""
    longest = max((len(_cut(name)) for name, _ in rows), default=0)
    left, line, top = min(170.0, 18 + 7.5 * longest), 22, 8
    bottom = top + line * len(rows)
    x = Scale(min(0.0, *(v for _, v in rows)), max(1e-12, *(v for _, v in rows)) * 1.12, left, float(WIDTH - RIGHT))
    parts = []
    for value in x.ticks(4):
        parts.append(tag("line", class_="grid", x1=x(value), x2=x(value), y1=top, y2=bottom))
        parts.append(tag("text", compact(value), class_="tick", x=x(value), y=bottom + 15, text_anchor="middle"))
    for index, (name, value) in enumerate(rows):
        at = top + line * index
        width = abs(x(value) - x(0.0))
        parts.append(
            tag("text", _cut(name), tag("title", name), class_="label", x=left - 7, y=at + 15, text_anchor="end")
        )
        parts.append(tag("rect", class_="bar", x=min(x(0.0), x(value)), y=at + 3, width=width, height=line - 6, rx=2))
        parts.append(tag("text", f"{value:.4g}", class_="value", x=max(x(0.0), x(value)) + 5, y=at + 15))
    parts.append(tag("text", x_label, class_="name", x=(left + WIDTH - RIGHT) / 2, y=bottom + 33, text_anchor="middle"))
    return _figure(parts, "; ".join(f"{name}: {value:.4g}" for name, value in rows), height=bottom + 40)


def _cut(name: str, most: int = 20) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _figure(parts: Sequence[Markup], told: str, width: int = WIDTH, height: int = HEIGHT, **data: object) -> Markup:
    box = f"0 0 {width} {height}"
    return tag("svg", *parts, class_="chart", viewBox=box, role="img", aria_label=told, **data)
