"""The stage graph as SVG: one layer per distance from the first stages, without edges that other edges imply."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from .contents import Stage
from .svg import short, tag

BOX_WIDTH, BOX_HEIGHT = 150, 72
ALONG, ACROSS = 40, 20
"""Pixels between layers, and between the boxes of one layer."""
MARGIN = 4
TRACK = 56
"""Length in pixels of the duration bar of the stage that took longest."""
SIGNS = {"up to date": "✓", "changed": "●", "not run": "○", "unknown": "?"}

Edges = Mapping[str, Sequence[str]]


def without_implied_edges(upstream: Edges) -> dict[str, list[str]]:
    """`upstream` without the edges that are implied by a longer path (the transitive reduction)."""
    above: dict[str, set[str]] = {}

    def ancestors(name: str) -> set[str]:
        if name not in above:
            above[name] = set(upstream[name]).union(*(ancestors(parent) for parent in upstream[name]))
        return above[name]

    return {
        name: [p for p in parents if not any(p in ancestors(other) for other in parents if other != p)]
        for name, parents in upstream.items()
    }


def layers_of(edges: Edges) -> tuple[list[list[str]], dict[tuple[str, str], list[str]]]:
    """Arrange the stages in layers, in an order in which few edges cross.

    Args:
        edges: stage -> the stages before it; each stage comes after these in the mapping.

    Returns:
        The layers, as lists of names; and for each edge (parent, child) its path: one name per layer, from parent to
        child. In layers between parent and child, an edge has a placeholder `<parent>><child>><layer>`.
    """
    depth: dict[str, int] = {}
    for name, parents in edges.items():
        depth[name] = 1 + max((depth[parent] for parent in parents), default=-1)
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    ways: dict[tuple[str, str], list[str]] = {}
    above: dict[str, list[str]] = {name: [] for name in edges}
    for name, parents in edges.items():
        layers[depth[name]].append(name)
        for parent in parents:
            passed = {f"{parent}>{name}>{layer}": layer for layer in range(depth[parent] + 1, depth[name])}
            ways[parent, name] = [parent, *passed, name]
            for place, layer in passed.items():
                layers[layer].append(place)
            for upper, lower in itertools.pairwise(ways[parent, name]):
                above.setdefault(lower, []).append(upper)
    for row, lower_row in itertools.pairwise(layers):
        at = {name: index for index, name in enumerate(row)}
        lower_row.sort(key=lambda name: (statistics.fmean(at[upper] for upper in above[name]), ">" not in name, name))
    return layers, ways


def draw(stages: Sequence[Stage], vertical: bool = False) -> Markup:
    """The graph from left to right, or with `vertical` from top to bottom, for a narrow page."""
    edges = without_implied_edges({stage.name: stage.upstream for stage in stages})
    layers, ways = layers_of(edges)
    widest = max((len(layer) for layer in layers), default=0)
    size, gap = ((BOX_WIDTH, ACROSS), (BOX_HEIGHT, ALONG)) if vertical else ((BOX_HEIGHT, ACROSS), (BOX_WIDTH, ALONG))
    (across, across_gap), (along, along_gap) = size, gap
    positions: dict[str, tuple[float, float]] = {}
    for depth, layer in enumerate(layers):
        offset = (widest - len(layer)) * (across + across_gap) / 2
        for index, name in enumerate(layer):
            first, second = depth * (along + along_gap), offset + index * (across + across_gap)
            positions[name] = (MARGIN + second, MARGIN + first) if vertical else (MARGIN + first, MARGIN + second)
    width = MARGIN + max((x for x, _ in positions.values()), default=0.0) + BOX_WIDTH
    height = MARGIN + max((y for _, y in positions.values()), default=0.0) + BOX_HEIGHT
    longest = max((stage.seconds or 0.0 for stage in stages), default=0.0)
    parts = [tag("path", class_="edge", d=_edge([positions[name] for name in way], vertical)) for way in ways.values()]
    parts += [_box(stage, *positions[stage.name], longest) for stage in stages]
    told = "; ".join(
        f"{stage.name}: {stage.state}" + (f", after {', '.join(edges[stage.name])}" if edges[stage.name] else "")
        for stage in stages
    )
    return tag(
        "svg", *parts, class_="dag", width=width, height=height, viewBox=f"0 0 {short(width)} {short(height)}",
        role="img", aria_label=f"Stage graph. {told}",
    )  # fmt: skip


def _edge(corners: Sequence[tuple[float, float]], vertical: bool) -> str:
    """The SVG path of an edge through its positions; it leaves and enters each box in the middle of a side."""
    middle = [(x + BOX_WIDTH / 2, y + BOX_HEIGHT / 2) for x, y in corners]
    half = (BOX_HEIGHT if vertical else BOX_WIDTH) / 2
    points: list[tuple[float, float]] = []
    for x, y in middle:
        points += [(x, y - half), (x, y + half)] if vertical else [(x - half, y), (x + half, y)]
    points = points[1:-1]
    path = [f"M{short(points[0][0])} {short(points[0][1])}"]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if vertical:
            bend = (y0 + y1) / 2
            path.append(f"C{short(x0)} {short(bend)} {short(x1)} {short(bend)} {short(x1)} {short(y1)}")
        else:
            bend = (x0 + x1) / 2
            path.append(f"C{short(bend)} {short(y0)} {short(bend)} {short(y1)} {short(x1)} {short(y1)}")
    return "".join(path)


def _box(stage: Stage, x: float, y: float, longest: float) -> Markup:
    seconds = stage.seconds
    parts = [
        tag("rect", class_="box", x=x, y=y, width=BOX_WIDTH, height=BOX_HEIGHT, rx=8),
        tag("text", _fitting(stage.name), tag("title", stage.name), class_="stage", x=x + 12, y=y + 22),
        tag("text", f"{SIGNS[stage.state]} {stage.state}", class_="state", x=x + 12, y=y + 42),
        tag("text", duration(seconds), class_="seconds", x=x + BOX_WIDTH - 12, y=y + 61, text_anchor="end"),
    ]
    if seconds is not None and longest > 0:
        share = max(2.0, TRACK * seconds / longest)
        parts.append(tag("rect", class_="track", x=x + 12, y=y + 54, width=TRACK, height=5, rx=2.5))
        parts.append(tag("rect", class_="bar", x=x + 12, y=y + 54, width=share, height=5, rx=2.5))
    return tag("g", *parts, class_=f"node {stage.state.replace(' ', '-')}")


def _fitting(name: str, most: int = 17) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"


def duration(seconds: float | None) -> str:
    """A time for people: 0.4 s, 12 s, 6 min 26 s, 3 h 05 min."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
