"""What a run came to, as Markdown: its stages, DVC's metrics, and the pictures among DVC's plots. Names no stage."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ganpipe.environment import STAGE_SECONDS

from .graph import open_repo

TIMES = STAGE_SECONDS
LARGEST_PICTURE = 400_000
"""Bytes. A picture is written into the page itself; a larger one is named by its path."""
_KINDS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif"}


def read_seconds(path: Path) -> dict[str, float]:
    """Wall times by stage as noted in `path`; empty where there are none yet."""
    try:
        return {str(name): float(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}


def markdown(root: Path, rows: Sequence[tuple[str, str]], seconds: Mapping[str, float]) -> str:
    """The report.

    Args:
        root: the checkout.
        rows: (stage, how it went).
        seconds: wall time of each stage that has run.
    """
    parts = ["## Stages", "", "| stage | state | seconds |", "|---|---|---|"]
    parts += [f"| {name} | {state} | {seconds.get(name, '')} |" for name, state in rows]
    with open_repo(root) as repo:
        metrics = list(_metrics(repo))
        pictures = sorted({str(path) for path in _pictures(repo, root)})
    if metrics:
        parts += ["", "## Metrics", "", "| file | metric | value |", "|---|---|---|"]
        parts += [f"| {file} | {name} | {value} |" for file, name, value in metrics]
    if pictures:
        parts += ["", "## Pictures"]
        for picture in pictures:
            parts += ["", f"**{picture}**", "", _picture(root / picture)]
    return "\n".join(parts) + "\n"


def _metrics(repo: Any) -> Iterator[tuple[str, str, str]]:
    for revision in repo.metrics.show().values():
        for file, content in sorted(revision.get("data", {}).items()):
            for name, value in _flat(content.get("data", {})):
                yield file, name, f"{value:.5g}" if isinstance(value, float) else str(value)


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for name, value in sorted(values.items()):
            yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, values


def _pictures(repo: Any, root: Path) -> Iterator[Path]:
    """Image files among the plots: outputs marked as plots, and what a top-level `plots:` names (files, or folders)."""
    named = [Path(out.fs_path) for out in repo.index.outs if out.plot]
    for dvc_yaml, plots in repo.index._plots.items():
        keys = [key for entry in plots for key in ([entry] if isinstance(entry, str) else entry)]
        named += [Path(dvc_yaml).parent / key for key in keys]
    for path in named:
        # Of a folder of samples the last one tells how it ended.
        newest = [max(path.iterdir(), default=path)] if path.is_dir() else [path]
        yield from (file.relative_to(root) for file in newest if file.suffix.lower() in _KINDS and file.is_file())


def _picture(path: Path) -> str:
    data = path.read_bytes()
    if len(data) > LARGEST_PICTURE:
        return f"({len(data) / 1e6:.1f} MB: see the file)"
    return f"![{path.name}](data:image/{_KINDS[path.suffix.lower()]};base64,{base64.b64encode(data).decode()})"
