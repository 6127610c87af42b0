"""dvc.yaml names the code that each stage uses: a change to what made an output always makes it anew."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from ganpipe.stages.tune import OF_TRAIN

ROOT = Path(__file__).parents[2]
PLUMBING = {
    "ganpipe/__init__.py", "ganpipe/catalogue.py", "ganpipe/cli.py", "ganpipe/cpus.py",
    "ganpipe/documents.py", "ganpipe/environment.py",
    "ganpipe/errors.py", "ganpipe/events.py", "ganpipe/params.py", "ganpipe/processes.py", "ganpipe/redaction.py",
    "ganpipe/section.py", "ganpipe/service_kinds.py", "ganpipe/services.py",
    "ganpipe/gans/__init__.py",
    "ganpipe/stages/__init__.py", "ganpipe/stages/common.py", "ganpipe/stages/spread.py",
    "ganpipe/stages/submitted.py", "ganpipe/stages/watch.py", "ganpipe/stages/work.py",
}  # fmt: skip
"""Reads settings, starts processes, reports errors: it decides nothing about the bytes of an output."""
DECIDES_WHAT_IS_READ = {"ganpipe/data/cache.py", "ganpipe/data/order.py"}
"""Of data/, after ingest. The rest writes shards, or checks them against digests, and cannot change what is read."""


def stages() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


def imports_of(path: Path) -> set[Path]:
    """The project's files that a file imports, wherever in it, with the packages on the way."""
    found: set[Path] = set()
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in ast.walk(node):
                if isinstance(child, ast.ImportFrom):
                    child.level = -1
        if not isinstance(node, ast.ImportFrom) or node.level < 1:
            continue
        base = ROOT.joinpath(*package[: len(package) - node.level + 1], *(node.module or "").split("."))
        for candidate in (base, *(base / alias.name for alias in node.names)):
            for file in (candidate.with_suffix(".py"), candidate / "__init__.py"):
                if file.exists():
                    found.add(file)
    return found


def closure(path: Path) -> set[str]:
    """All of the project's files that running `path` imports, and that may decide what it makes."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        name = str(current.relative_to(ROOT))
        if current in seen or name in PLUMBING:
            continue
        seen.add(current)
        waiting += imports_of(current)
    return {str(file.relative_to(ROOT)) for file in seen}


def is_covered(file: str, deps: list[str]) -> bool:
    return any(file == dep or file.startswith(f"{dep}/") for dep in deps)


@pytest.mark.parametrize("stage", stages())
def test_a_stage_depends_on_the_code_that_it_uses(stage: str) -> None:
    deps = stages()[stage]["deps"]
    needed = closure(ROOT / "ganpipe" / "stages" / f"{stage}.py")
    assert f"ganpipe/stages/{stage}.py" in needed
    if stage != "register":
        needed = {file for file in needed if not file.startswith("ganpipe/registry/")}
    else:  # measures only where the champion must be scored again, and that number is never an output
        needed = {file for file in needed if not file.startswith(("ganpipe/evaluation/", "ganpipe/data/"))}
    if stage != "ingest":
        needed = {f for f in needed if not f.startswith("ganpipe/data/") or f in DECIDES_WHAT_IS_READ}
    uncovered = sorted(file for file in needed if not is_covered(file, deps) and not file.endswith("/__init__.py"))
    assert uncovered == []


@pytest.mark.parametrize("stage", stages())
def test_a_stage_that_trains_or_samples_depends_on_its_gan_and_no_other(stage: str) -> None:
    interface = {"ganpipe/gans/base.py", "ganpipe/gans/draws.py"}
    named = {dep for dep in stages()[stage]["deps"] if dep.startswith("ganpipe/gans")} - interface
    own = {"ganpipe/gans/${train.gan}.py"}
    assert named == (own if stage in ("tune", "train", "evaluate", "register") else set())
    params = [key for key in stages()[stage]["params"] if key.startswith("gans")]
    assert params == (["gans.${train.gan}"] if stage in ("tune", "train") else [])


def test_the_search_depends_on_what_it_reads_of_train() -> None:
    named = {key.removeprefix("train.") for key in stages()["tune"]["params"] if key.startswith("train.")}
    assert named == set(OF_TRAIN)


def test_every_output_lies_in_artifacts_and_every_stage_has_a_policy() -> None:
    for name, stage in stages().items():
        outs = [next(iter(out)) if isinstance(out, dict) else out for out in stage["outs"] + stage.get("metrics", [])]
        assert all(out.startswith("artifacts/") for out in outs), name
        assert {"retries", "timeout_seconds"} <= set(stage["meta"]), name
        assert stage["desc"], name
