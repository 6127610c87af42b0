"""models: the versions of the registered model, with their aliases, their metrics, and what the gate said."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .. import environment
from ..errors import GanpipeError, UnavailableError
from ..params import load_params
from ..registry.alias_history import alias_history_of
from ..registry.versions import CHAMPION, VersionInfo, describe_versions, explain_missing_alias
from ..tracking.links import version_page
from ..tracking.runs import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ganpipe models", description=__doc__)
    parser.add_argument("--model", help="registered model; default: register.model_name of params.yaml")
    parser.add_argument("--history", action="store_true", help="every move of an alias: who, when, from, to, why")
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    options = parser.parse_args(argv)
    settings = load_params().register_
    name = options.model or settings.model_name
    tracker = Tracker.at(environment.home(), settings.experiment)
    tracker.check()
    client = tracker.client()
    versions = describe_versions(client, tracker, name)
    if options.json:
        history = _history_if_there(client, tracker, name)
        shown = [{**asdict(item), "page": version_page(tracker, name, item.version)} for item in versions]
        print(json.dumps({"model": name, "versions": shown, "history": history}, indent=2))
    elif options.history:
        print(
            "\n".join(_move(move) for move in alias_history_of(client, tracker, name))
            or f"{name}: no alias was moved yet"
        )
    else:
        print(name)
        print("\n".join(_table(versions, settings.metric)))
        if versions and not any(CHAMPION in item.aliases for item in versions):
            print(explain_missing_alias(CHAMPION, name, versions[0].version, versions[0].why))
    return 0


def _history_if_there(client: MlflowClient, tracker: Tracker, name: str) -> list[dict[str, Any]]:
    """The alias history for --json. If it is gone, programs still get the versions, and a warning is printed."""
    try:
        return alias_history_of(client, tracker, name)
    except UnavailableError:
        raise
    except GanpipeError as error:
        print(f"warning: {error}", file=sys.stderr)
        return []


def _move(move: dict[str, Any]) -> str:
    origin, target = (f"version {move[end]}" if move[end] is not None else "none" for end in ("from", "to"))
    return f"{move['at']}  {move['alias']}: {origin} -> {target}, {move['how']} by {move['by']}\n    {move['why']}"


def _table(versions: list[VersionInfo], metric: str) -> list[str]:
    head = ("version", "aliases", metric, "protocol", "gan", "data", "commit", "registered")
    rows = [
        (
            str(item.version),
            " ".join(f"@{alias}" for alias in item.aliases) or "-",
            f"{item.metrics[metric]:g}" if metric in item.metrics else "-",
            item.protocol[:12] or "-",
            item.gan or "-",
            f"{item.data_source or '?'} {item.data_digest[:8]}",
            f"{item.commit[:8] or '-'}{'+' if item.dirty else ''}",
            item.created_at[:16].replace("T", " "),
        )
        for item in versions
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for at, row in enumerate([head, *rows]):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if at and versions[at - 1].start:
            lines.append(f"    Started from {versions[at - 1].start}.")
        if at and versions[at - 1].why:
            lines.append(f"    {versions[at - 1].why}")
    return lines
