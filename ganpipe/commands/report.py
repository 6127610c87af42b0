"""report: a run as one self-contained HTML page, which is also stored in the training's run in MLflow."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..environment import home, repo_root
from ..errors import GanpipeError
from ..params import load_params
from ..reporting import mlflow_state
from ..reporting.contents import Report
from ..reporting.gather import gather
from ..reporting.page import render
from ..tracking.runs import Tracker
from . import output

DEFAULT = Path("report.html")
"""In the checkout's root, where people find it. Git ignores the file. It is not a DVC output, because durations and the
registry's state do not follow from a stage's inputs."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ganpipe report", description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        help=f"page.html, or a folder for {DEFAULT}; default: {DEFAULT} in the checkout's root; {output.RULE}",
    )
    options = parser.parse_args(argv)
    root = repo_root()
    out = options.out or root / DEFAULT
    if output.is_folder(out, ".html"):
        out = out / DEFAULT
    params = load_params(root / "params.yaml")
    report = gather(root, params)
    page = render(report)
    output.write(out, page.encode())
    parts = list(dict.fromkeys(item.part for item in report.missing))
    print(f"report   {os.path.relpath(out)}" + (f"; missing: {', '.join(parts)}" if parts else ""))
    print(f"MLflow   {_keep(report, Tracker.at(home(root), params.register_.experiment), page)}")
    return 0


def _keep(report: Report, tracker: Tracker, page: str) -> str:
    """Log the page to the training's run. The command does not fail if MLflow does not answer.

    Returns:
        What happened, for people.
    """
    if report.run is None:
        reasons = [item.text for item in report.missing if item.part == "MLflow"]
        return f"page not logged: {reasons[0] if reasons else 'there is no training run yet'}"
    try:
        mlflow_state.log_page(mlflow_state.connect_to_existing(tracker), tracker, report.run.run_id, page)
    except GanpipeError as error:
        return f"page not logged: {error}"
    return f"{mlflow_state.PAGE} of the training's run {report.run.run_id}"
