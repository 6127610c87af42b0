"""The `ganpipe` commands around the stages: the check before them, the summary after them.

They run as child processes with the code of the folder that they are about. A DVC project without the package, as in
the tests, has no such commands; the flow then runs without them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ganpipe.errors import GanpipeError
from ganpipe.redaction import redact

from . import artifacts
from .stages import child_environment, error_in_output


def check(root: Path, checkout: Path) -> list[str]:
    """`ganpipe check`: what can be known before long work starts. Returns its warnings.

    Raises:
        GanpipeError: something does not fit, in the command's own words.
    """
    done = _completed("check", root=root, checkout=checkout)
    lines = [] if done is None else redact(done.stderr).splitlines()
    return [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]


def summary(root: Path, checkout: Path) -> dict[str, Any]:
    """`ganpipe summary --json`, shown on the flow run's page as a table and links; {} before anything is registered."""
    text = _run("summary", "--json", root=root, checkout=checkout)
    values: dict[str, Any] = json.loads(text) if text else {}
    if values:
        note = artifacts.Note(about=values["protocol"], metrics=values["told"])
        artifacts.publish_metrics("pipeline-metrics", values["metrics"], note)
        artifacts.publish_links("pipeline", values["links"])
    return values


def report(root: Path, checkout: Path, out: Path) -> None:
    """`ganpipe report`: the run as one HTML page, in `out` and with the training's run in MLflow."""
    _run("report", "--out", str(out), root=root, checkout=checkout)


def _run(*arguments: str, root: Path, checkout: Path) -> str:
    """Standard output of `ganpipe <arguments>` in `root`; nothing where there is no ganpipe."""
    done = _completed(*arguments, root=root, checkout=checkout)
    return "" if done is None else done.stdout


def _completed(*arguments: str, root: Path, checkout: Path) -> subprocess.CompletedProcess[str] | None:
    """`ganpipe <arguments>`, done in `root`; None where there is no ganpipe."""
    if not (root / "ganpipe" / "cli.py").exists():
        return None
    command = [sys.executable, "-m", "ganpipe", *arguments]
    variables = child_environment(root, checkout)
    done = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GanpipeError(error_in_output(redact(done.stderr).splitlines()))
    return done
