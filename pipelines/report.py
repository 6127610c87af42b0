"""The result of a run as Markdown: its stages, DVC's metrics, and the pictures among DVC's plots. Names no stage."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .graph import PICTURES, open_repo, pictures_of

LARGEST_PICTURE = 400_000
"""Bytes. A picture is written into the page itself; a larger one as a smaller JPEG."""
REDUCED_SIDE = 1000
"""Pixels of such a JPEG's longer side."""


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
        pictures = [found.relative_to(root) for path in pictures_of(repo) for found in shown(root / path)]
    if metrics:
        parts += ["", "## Metrics", "", "| file | metric | value |", "|---|---|---|"]
        parts += [f"| {file} | {name} | {value} |" for file, name, value in metrics]
    if pictures:
        parts += ["", "## Pictures"]
        for path in pictures:
            parts += ["", f"**{path}**", "", picture(root / path)]
    return "\n".join(parts) + "\n"


def _metrics(repo: Any) -> Iterator[tuple[str, str, str]]:
    for revision in repo.metrics.show().values():
        for file, content in sorted(revision.get("data", {}).items()):
            for name, value in flat(content.get("data", {})):
                yield file, name, f"{value:.5g}" if isinstance(value, float) else str(value)


def flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything in nested mappings."""
    if isinstance(values, dict):
        for name, value in sorted(values.items()):
            yield from flat(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, values


def shown(path: Path) -> list[Path]:
    """The pictures to show, of a picture's path or of a folder of them: all of them, or only the last where all are
    numbered, because these follow each other in time and the last shows the result."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    pictures = [file for file in files if file.suffix.lower() in PICTURES and file.is_file()]
    return pictures[-1:] if all(picture.stem.isdecimal() for picture in pictures) else pictures


def picture(path: Path) -> str:
    """A picture as Markdown that holds the image itself; a large one as a smaller JPEG, or only its size."""
    data, kind = path.read_bytes(), PICTURES[path.suffix.lower()]
    if len(data) > LARGEST_PICTURE:
        data, kind = _reduced(path), "jpeg"
    if len(data) > LARGEST_PICTURE:
        return f"({path.stat().st_size / 1e6:.1f} MB: see the file)"
    return f"![{path.name}](data:image/{kind};base64,{base64.b64encode(data).decode()})"


def _reduced(path: Path) -> bytes:
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((REDUCED_SIDE, REDUCED_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
