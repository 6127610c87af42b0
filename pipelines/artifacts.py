"""What people see on a run's pages in Prefect: tables of metrics with their protocol, pictures, links."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from . import report
from .graph import Stage

NOTES = Path(".ganpipe") / "notes"
"""Folder with one JSON file per stage, which the stage writes when it runs: see `Note`."""
PATIENCE_SECONDS = 120.0
"""How long an artifact waits for a server that does not answer."""


@dataclass(frozen=True)
class Note:
    """What a stage says about its last run, beside its outputs: nothing of it is an output.

    Attributes:
        about: one sentence on how its numbers were measured: their protocol.
        links: URLs of pages, by title; for a page that is not up, a text that says where it would be.
        metrics: by name: further columns of the table, such as which values are `better`.
    """

    about: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def read_note(root: Path, stage: str) -> Note:
    """The note of `stage`; an empty one where it left none."""
    try:
        values = json.loads((root / NOTES / f"{stage}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Note()
    return Note(
        str(values.get("about", "")),
        {str(text): str(url) for text, url in values.get("links", {}).items()},
        {str(name): dict(told) for name, told in values.get("metrics", {}).items()},
    )


def publish(root: Path, stage: Stage) -> None:
    """Artifacts of the stage's task run: its metrics with their protocol, its pictures, its links."""
    note = read_note(root, stage.name)
    for file in stage.metrics:
        publish_metrics(_key(stage.name, Path(file).stem), read_metrics(root / file), note)
    shown = [shown for path in stage.pictures for shown in report.shown(root / path)]
    if shown:
        text = "\n\n".join(f"**{path.relative_to(root)}**\n\n{report.picture(path)}" for path in shown)
        _show(
            create_markdown_artifact, _key(stage.name, "pictures"), text, description=f"Pictures that {stage.name} made"
        )
    publish_links(stage.name, note.links)


def read_metrics(path: Path) -> dict[str, Any]:
    """A metrics file (JSON), as a flat mapping with dotted names."""
    return dict(report.flat(json.loads(path.read_text(encoding="utf-8"))))


def publish_metrics(key: str, metrics: Mapping[str, Any], note: Note) -> None:
    """A table: each number beside what the stage says of it, and the protocol under which it was measured."""
    protocol = {"protocol": note.about} if note.about else {}
    columns = list(dict.fromkeys(key for told in note.metrics.values() for key in told))
    rows = []
    for name, value in metrics.items():
        told = note.metrics.get(name, {})
        rows.append({"metric": name, "value": value, **{key: told.get(key, "") for key in columns}, **protocol})
    _show(create_table_artifact, key, rows, description=note.about or None)


def publish_links(name: str, links: Mapping[str, str]) -> None:
    """Link artifacts; what is no URL, since its page is not up, is shown as text."""
    for text, url in links.items():
        key = _key(name, text)
        if url.startswith(("http://", "https://")):
            _show(create_link_artifact, key, url, link_text=text, description=text)
        else:
            _show(create_markdown_artifact, key, f"{text}: `{url}`", description=text)


def publish_report(text: str) -> None:
    """The whole run's report, as Markdown."""
    _show(create_markdown_artifact, "pipeline-report", text, description="Stages, metrics and sample grids of this run")


def publish_table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Rows with the same columns, as a table."""
    _show(create_table_artifact, _key(key), [dict(row) for row in rows], description=description)


def _show(create: Callable[..., object], key: str, content: object, **options: Any) -> None:
    """Make an artifact; where Prefect's server stays away, the run goes on without it: it is a view, not an output."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            create(content, key=key, **options)
            return
        except httpx.HTTPError as error:
            if time.monotonic() > deadline:
                get_run_logger().warning(
                    "Prefect's server does not answer (%s), so %s is not on the run's page; what it shows is in the "
                    "outputs and in `ganpipe report`",
                    error,
                    key,
                )
                return
            time.sleep(2.0)


def _key(*parts: str) -> str:
    """An artifact's key: Prefect takes lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
