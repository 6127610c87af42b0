"""Two packaged generators side by side: metrics with their protocol, and everything in which they differ. Plain
data."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation.metrics import direction_of
from ..tracking.run_log import flatten

Row = tuple[str, str, str]
"""Key, value of the first generator, value of the second."""


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two generators.

    Attributes:
        names: names of the two generators.
        metrics: (metric, value of the first, value of the second, name of the better generator). The last is empty if
            the values are equal or cannot be compared.
        protocols: fields in which the protocols of the two evaluations differ. If there is any, no metric can be
            compared.
        differences: settings, data and digests that differ.
    """

    names: tuple[str, str]
    metrics: Sequence[tuple[str, str, str, str]]
    protocols: Sequence[Row]
    differences: Sequence[Row]

    @property
    def warning(self) -> str:
        """Why the metrics cannot be compared; empty if they can."""
        if not self.protocols:
            return ""
        fields = ", ".join(f"{key} ({first} / {second})" for key, first, second in self.protocols)
        return f"the numbers were measured under different protocols and do not compare: {fields}"


def compare(
    names: tuple[str, str],
    descriptions: tuple[Mapping[str, Any], Mapping[str, Any]],
    settings: tuple[Mapping[str, str], Mapping[str, str]] | None = None,
) -> Comparison:
    """Compare two packages.

    Args:
        names: names of the two generators.
        descriptions: the content of their model.json.
        settings: settings of the runs that trained them, if both are known; else the settings of the GANs, from
            model.json, are compared.
    """
    first, second = descriptions
    protocols = _differences(*(_without(item["protocol"], "hash") for item in descriptions))
    metrics = []
    for name in sorted({*first["metrics"], *second["metrics"]}):
        values = [item["metrics"].get(name) for item in descriptions]
        shown = ["-" if value is None else f"{value:g}" for value in values]
        metrics.append((name, shown[0], shown[1], "" if protocols else _better(name, values, names)))
    hidden = ("metrics", "protocol", "format", *(["config"] if settings else []))
    facts = [_without(item, *hidden) for item in descriptions]
    if settings:
        facts = [{**fact, **known} for fact, known in zip(facts, settings, strict=True)]
    return Comparison(names, metrics, protocols, _differences(*facts))


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Row]:
    flat = [{key: str(value) for key, value in flatten(item).items()} for item in (first, second)]
    return [
        (key, flat[0].get(key, "-"), flat[1].get(key, "-"))
        for key in sorted({*flat[0], *flat[1]})
        if flat[0].get(key) != flat[1].get(key)
    ]


def _better(metric: str, values: Sequence[float | None], names: tuple[str, str]) -> str:
    first, second = values
    direction = direction_of(metric)
    if first is None or second is None or direction is None or first == second:
        return ""
    return names[0] if (first < second) == (direction == "lower") else names[1]


def as_text(comparison: Comparison) -> str:
    """The comparison as text for a terminal."""
    first, second = comparison.names
    parts = [_columns([("", first, second, "better"), *comparison.metrics])]
    if comparison.warning:
        parts.append(f"warning: {comparison.warning}")
    if comparison.differences:
        parts.append(_columns([("differs", first, second), *comparison.differences]))
    return "\n\n".join(parts)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { border: 1px solid #bbb; padding: .3rem .6rem; text-align: left; overflow-wrap: anywhere }
img { max-width: 100% }
.warning { background: #fff1c2; padding: .6rem 1rem }
"""


def as_html(comparison: Comparison, picture_png: bytes) -> str:
    """The comparison as one HTML page that needs no other file."""
    first, second = (html.escape(name) for name in comparison.names)
    picture = base64.b64encode(picture_png).decode()
    warning = f'<p class="warning">Warning: {html.escape(comparison.warning)}</p>' if comparison.warning else ""
    differences = _html_table(("", *comparison.names), comparison.differences)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{first} and {second}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{first} and {second}</h1>"
        f'<h2>Samples</h2><p>Left: {first}. Right: {second}. Equal places have equal seeds.</p><img alt="Samples of '
        f'{first}, left, and {second}, right" src="data:image/png;base64,{picture}">'
        f"<h2>Metrics</h2>{_html_table(('metric', *comparison.names, 'better'), comparison.metrics)}{warning}"
        f"<h2>Differences</h2>{differences if comparison.differences else '<p>None.</p>'}</body></html>\n"
    )


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = ["".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)]
    cells += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"
