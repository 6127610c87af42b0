"""Rendering a report as one HTML file that loads nothing from other hosts."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from . import charts, dag
from .contents import Curve, Metric, Report, Search
from .dvc_state import stage_params
from .svg import compact

MAX_BARS = 40
"""Bars in the chart of classes. If there are more classes, it shows those with the worst FID; the table below the chart
has all classes."""


def render(report: Report) -> str:
    """The report as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"compact": compact, "value": value, "plain": plain, "duration": dag.duration}
    environment.filters |= {"size": size, "breakable": breakable, "coded": coded}
    style, script = Markup(_template("page.css")), Markup(_template("page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("page.html").render(
        report=report,
        style=style,
        script=script,
        policy=policy,
        signs=dag.SIGNS,
        headline=headline(report),
        verdict=verdict(report),
        total=sum(stage.seconds or 0.0 for stage in report.stages),
        graph=dag.draw(report.stages),
        narrow_graph=dag.draw(report.stages, vertical=True),
        curve_charts=curve_charts(report),
        scatters=scatters(report.search),
        class_bars=class_bars(report),
        missing=missing_by_part(report),
        params=list(stage_params(list(report.stages))),
        commits=commits(report),
    )


def _template(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def value(number: float | None) -> str:
    """A number for a table: five significant digits, thousands separators for integers."""
    if number is None or not math.isfinite(number):
        return "not finite"
    if float(number).is_integer() and abs(number) < 1e15:
        return f"{int(number):,}"
    return f"{number:.5g}"


def breakable(name: str) -> Markup:
    """A long name in which a line may break after each dot, slash and underscore."""
    return Markup("").join(part + Markup("<wbr>") if part in "._/" else part for part in re.split(r"([._/])", name))


def coded(text: str) -> Markup:
    """A sentence in which text between backticks becomes <code>."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if at % 2 else p for at, p in enumerate(parts))


def plain(item: Any) -> str:
    """A setting as YAML would show it."""
    if item is None:
        return "null"
    if isinstance(item, bool):
        return str(item).lower()
    return str(item)


def size(num_bytes: int | None) -> str:
    """A number of bytes for people, in decimal units: 12.3 kB; empty for None."""
    if num_bytes is None:
        return ""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000 or unit == "GB":
            break
        num_bytes = num_bytes / 1000  # type: ignore[assignment]
    return f"{num_bytes:.3g} {unit}" if unit != "bytes" else f"{num_bytes} bytes"


def metrics(report: Report) -> Sequence[Metric]:
    return report.evaluation.metrics if report.evaluation else ()


def headline(report: Report) -> list[tuple[str, str, str]]:
    """(name, value, remark) of each number at the top of the page."""
    tiles = []
    gate = [metric for metric in metrics(report) if metric.name == report.gate_metric] or list(metrics(report))[:1]
    for metric in gate:
        remarks = [f"{metric.better} is better" if metric.better else "", metric.beside]
        tiles.append((metric.name, value(metric.value), ", ".join(remark for remark in remarks if remark)))
    if report.registered:
        aliases = ", ".join(report.registered.aliases) or "no alias"
        tiles.append(("model version", f"{report.registered.model} {report.registered.version}", aliases))
    if report.training:
        remark = f"{report.training.step:,} updates"
        tiles.append(("images seen", compact(report.training.images_seen), remark))
    seconds = [stage.seconds for stage in report.stages if stage.seconds is not None]
    if seconds:
        tiles.append(("wall time", dag.duration(sum(seconds)), "all stages, when each last ran"))
    return tiles


def verdict(report: Report) -> tuple[str, str] | None:
    """(style class, sentence) of the gate's decision; None if it is not known."""
    registered = report.registered
    if registered is None or registered.decision is None:
        return None
    name = f"Version {registered.version}"
    if not registered.decision.passed:
        return "failed", f"{name} did not pass the gate: it got no alias"
    if "champion" in registered.aliases:
        return "promoted", f"{name} is the champion"
    if registered.decision.promote:
        return "passed", f"{name} became the champion; today version {registered.champion or 'none'} is"
    return "passed", f"{name} passed the conditions and did not beat the champion, version {registered.champion}"


def missing_by_part(report: Report) -> dict[str, list[str]]:
    """Texts about what is missing, by the part that they belong to."""
    parts: dict[str, list[str]] = {}
    for item in report.missing:
        parts.setdefault(item.part, []).append(item.text)
    return parts


def curve_charts(report: Report) -> list[tuple[str, list[str], Markup]]:
    """(title, legend, chart) of each plot: one per loss, with a line per player; the scores; one per other observation
    of the GAN."""
    players = report.training.players if report.training else ()
    groups: dict[tuple[str, str], list[Curve]] = {}
    for curve in report.curves:
        player = next((player for player in players if curve.name.startswith(f"{player}_")), None)
        if player is not None:
            loss = curve.name.removeprefix(f"{player}_").replace("_", " ")
            groups.setdefault((f"Loss: {loss}", "loss"), []).append(Curve(player, curve.points))
        elif curve.name.startswith("score_"):
            images = Curve(f"{curve.name.removeprefix('score_')} images", curve.points)
            groups.setdefault(("What the discriminator says", "score"), []).append(images)
        else:
            groups.setdefault((curve.name.replace("_", " "), ""), []).append(curve)
    found = [
        (title, [curve.name for curve in curves], charts.line_chart(curves, "images seen", name))
        for (title, name), curves in groups.items()
    ]
    for curve in report.scores:
        chart = charts.line_chart([curve], "images seen", curve.name, dots=True)
        found.append(("Quick FID" if curve.name.startswith("quick_fid") else curve.name, [], chart))
    return found


def scatters(search: Search | None) -> list[tuple[str, Markup]]:
    """(setting, chart) for each setting of the search: the trials' objectives over its values."""
    found = []
    for name in search.settings if search else ():
        dots = []
        for trial in search.trials if search else ():
            x, y = trial.settings[name], trial.objective
            if x is not None and y is not None:
                text = f"trial {trial.number}{' (best)' if trial.best else ''}: {name} {value(x)}, {value(y)}"
                dots.append(charts.Dot(x, y, text, trial.best, not trial.finished))
        if dots:
            found.append((name, charts.scatter(dots, name, search.objective if search else "", name.endswith(".lr"))))
    return found


def class_bars(report: Report) -> Markup | None:
    """The FID of each class as bars, at most MAX_BARS; None if there are no classes."""
    rows = report.evaluation.class_fids if report.evaluation else ()
    return charts.bars(rows[:MAX_BARS], "FID, lower is better") if rows else None


def commits(report: Report) -> list[tuple[str, str, str, str]]:
    """Rows of (moment, commit, branch, whether tracked files differed from the commit)."""
    moments = [
        ("when it was trained", report.run.tags if report.run else None),
        ("when it was registered", report.registered.tags if report.registered else None),
        ("when this page was made", report.git),
    ]
    rows = []
    for moment, tags in moments:
        if tags is not None:
            dirty = {"true": "yes", "false": "no"}.get(tags.get("ganpipe.git.dirty", ""), "not known")
            branch = tags.get("mlflow.source.git.branch", "")
            rows.append((moment, tags.get("ganpipe.git.commit", "none"), "" if branch == "HEAD" else branch, dirty))
    return rows
