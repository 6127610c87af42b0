"""What stages share: where their outputs are, and how files are read and written."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.shards.manifest import Manifest, read_manifest, verify
from ..data.shards.shard_set import ShardSet
from ..documents import parse_json, read_bounded
from ..errors import GanpipeError
from ..params import Params

SHARDS = Path("artifacts/shards")
REAL_IMAGES = Path("artifacts/ingest/real.png")
DATA_REPORT, DATA_PAGE = Path("artifacts/ingest/data.json"), Path("artifacts/ingest/data.html")
REFERENCE = Path("artifacts/reference")
TUNE = Path("artifacts/tune")
TRAIN = Path("artifacts/train")
CURVES = "curves"
"""In TRAIN: the folder with a table per quantity."""
EVALUATE = Path("artifacts/evaluate")
PACKAGE = Path("artifacts/package")
NOTES = Path(".ganpipe/notes")
STAGES = ("code", "ingest", "reference", "tune", "train", "evaluate", "register")
_MAX_JSON_BYTES = 2**26


def shards_here(params: Params, manifest: Manifest | None = None) -> ShardSet:
    """The shards of this checkout, read as `data.read` says.

    Args:
        manifest: theirs; read from the folder when None.
    """
    return ShardSet(str(SHARDS.absolute()), manifest, read=params.data.read, store=params.data.store)


def verified_shards(params: Params) -> Manifest:
    """The manifest of this checkout's shards, after what can be compared with it in reasonable time was compared:
    contents, or the sizes alone of shards that are streamed. Whoever opens a shard of a stream or of `data.store`
    compares its content.

    Raises:
        GanpipeError: a shard is missing or differs; names the first one.
    """
    if params.data.store is not None:
        return read_manifest(SHARDS)
    return verify(SHARDS, contents=params.data.read != "stream")


def write_json(path: Path, values: Any) -> None:
    """`values` as JSON with sorted keys: the same values are the same bytes."""
    write_text(path, json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def read_json(path: Path, made_by: str) -> Any:
    """What is in `path`.

    Raises:
        GanpipeError: the file is missing or no JSON; the message names the stage that makes it.
    """
    try:
        return parse_json(read_bounded(path, _MAX_JSON_BYTES))
    except FileNotFoundError:
        raise GanpipeError(f"{path}: no such file; the stage {made_by!r} makes it: run `dvc repro {made_by}`") from None
    except ValueError as error:
        raise GanpipeError(
            f"{path}: not valid JSON ({error}); run `dvc repro --force --single-item {made_by}`"
        ) from None


def leave_note(
    stage: str,
    about: str = "",
    links: Mapping[str, str] | None = None,
    metrics: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Write what Prefect shows on the page of the stage's run, beside its outputs (`pipelines/artifacts.py` reads it).

    Args:
        about: one sentence on what its numbers mean.
        links: pages by title.
        metrics: by name: which values are `better`, and what the number `tells`.
    """
    write_json(NOTES / f"{stage}.json", {"about": about, "links": dict(links or {}), "metrics": dict(metrics or {})})


def require_no_arguments(argv: list[str], command: str, about: str | None, more: str = "") -> None:
    """Answer `--help`, and refuse all other arguments of a command that takes everything from params.yaml.

    Args:
        about: what the command does, for the help.
        more: the end of the help.

    Raises:
        GanpipeError: there are other arguments.
    """
    rule = "It takes no arguments: its settings are in params.yaml."
    if command in STAGES:
        rule += f" What it reads and writes is in dvc.yaml. `dvc repro {command}` runs it with all that it needs."
    parser = argparse.ArgumentParser(prog=f"ganpipe {command}", description=about, epilog=f"{rule} {more}".strip())
    _, others = parser.parse_known_args(argv)
    if others:
        raise GanpipeError(
            f"ganpipe {command}: takes no arguments, got {' '.join(argv)!r}; settings are in params.yaml"
        )
