"""Sending to MLflow what earlier runs recorded while it did not answer."""

from __future__ import annotations

from pathlib import Path

from .runs import Tracker
from .spool import is_held, run_description, spool_files


def runs_with_unsent_records(root: Path) -> dict[str, Path]:
    """The runs of the checkout in `root` that have unsent records, and no living process that sends them.

    Returns:
        For each run, by its name in the spool, one of its spool files.
    """
    spool_dir = Path(Tracker.at(root, experiment="").spool_dir)
    return {path.name.split(".")[0]: path for path in spool_files(spool_dir) if not is_held(path)}


def replay(root: Path, timeout_seconds: float = 60.0) -> tuple[int, int]:
    """Send all unsent records of the checkout in `root`.

    Args:
        timeout_seconds: for each run.

    Returns:
        How many runs had unsent records, and how many of these have none now.

    Raises:
        GanpipeError: MLflow does not answer.
    """
    tracker = Tracker.at(root, experiment="")
    found = runs_with_unsent_records(root)
    if found:
        tracker.check()
    logs = [tracker.resume_spool(run_id, run_description(path)) for run_id, path in found.items()]
    return len(logs), sum(log.close(timeout_seconds=timeout_seconds) for log in logs)
