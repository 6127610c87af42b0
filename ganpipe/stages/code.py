"""code: which code each stage uses, as one small file per stage. A stage is done again when its own file changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import gans
from ..data import sources
from ..documents import read_settings
from ..errors import GanpipeError
from ..imports import SOURCES, closure, digest
from ..section import nearest
from .common import require_no_arguments, write_json

CODE = Path("artifacts/code")
GATHERING = "params.py"
"""It imports the settings of every room; of these a stage uses only what it reads, as `READS` says."""
READS: dict[str, tuple[str, ...]] = {
    "ingest": ("data", "sources"),
    "reference": ("evaluate",),
    "tune": ("tune", "gans", "train", "evaluate"),
    "train": ("train", "cluster", "gans", "evaluate"),
    "evaluate": ("evaluate", "gans"),
    "register": ("register", "gans", "train"),
}
"""Stage -> the sections of params.yaml that decide its outputs, as in dvc.yaml."""
SETTINGS = {
    "data": "data/settings.py",
    "sources": "data/sources/{source}.py",
    "train": "training/settings.py",
    "cluster": "training/settings.py",
    "tune": "training/search_settings.py",
    "evaluate": "evaluation/settings.py",
    "register": "registry/settings.py",
    "gans": "gans/{gan}.py",
}
"""Section -> the file that defines it, and with it everything that the file chooses by name."""
ALL_OF: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluation/metrics", "evaluation/figures"),
    "register": ("evaluation/metrics",),
}
"""Stage -> the folders of which it uses every file, without importing any by name."""


def main(argv: list[str]) -> int:
    require_no_arguments(argv, "code", __doc__)
    gan, source = _chosen(Path("params.yaml"))
    for stage in READS:
        write_json(CODE / f"{stage}.json", code_of(stage, gan, source))
    print(f"{CODE}: the code of {len(READS)} stages, with the GAN {gan!r} and the source {source!r}")
    return 0


def code_of(stage: str, gan: str, source: str = "", sources: Path = SOURCES) -> dict[str, str]:
    """The files that `stage` uses, each with the digest of its syntax tree (see `imports.digest`).

    Args:
        gan: the value of train.gan.
        source: the value of data.source; only the stage that reads sources needs it.
        sources: the folder of the package ganpipe.
    """
    starts = {SETTINGS[section].format(gan=gan, source=source) for section in READS[stage]}
    found = [path for folder in ALL_OF.get(stage, ()) for path in (sources / folder).glob("*.py")]
    starts |= {path.relative_to(sources).as_posix() for path in found}
    files = closure([f"stages/{stage}.py", *sorted(starts)], sources, gathering=GATHERING).files
    return {f"{sources.name}/{name}": digest(sources / name) for name in files}


def code_digest(stage: str, gan: str) -> str:
    """SHA-256 over the code that decides what `stage` makes with `gan`."""
    return hashlib.sha256(json.dumps(code_of(stage, gan), sort_keys=True).encode()).hexdigest()


def _chosen(path: Path) -> tuple[str, str]:
    """train.gan and data.source, read without the code that checks all other settings: that is `ganpipe check`.

    Raises:
        GanpipeError: the file is missing or no YAML, or names no such GAN or source.
    """
    params = read_settings(path)
    return _chosen_name(params, "train", "gan", gans.names()), _chosen_name(params, "data", "source", sources.names())


def _chosen_name(params: Mapping[str, Any], section: str, key: str, names: Sequence[str]) -> str:
    values = params.get(section)
    name = values.get(key) if isinstance(values, Mapping) else None
    if name not in names:
        raise GanpipeError(f"params.yaml: {section}.{key}: got {name!r}; {nearest(str(name), names)}")
    return str(name)
