"""Send to MLflow what earlier runs recorded while it was away: python -m ganpipe.registry.replay"""

from __future__ import annotations

import sys
from pathlib import Path

from .. import environment
from ..errors import GanpipeError
from .spool import left_over
from .tracking import Tracker


def replay(root: Path, timeout_seconds: float = 60.0) -> tuple[int, int]:
    """Send all leftover records of the repo in `root`.

    Returns:
        How many runs had records left, and how many of these have none now.

    Raises:
        GanpipeError: MLflow does not answer.
    """
    tracker = Tracker.at(root, experiment="")
    run_ids = sorted({path.name.split(".")[0] for path in left_over(Path(tracker.spool_dir))})
    if run_ids:
        tracker.check()
    sent = [tracker.attach(run_id).close(timeout_seconds=timeout_seconds) for run_id in run_ids]
    return len(sent), sum(sent)


def main() -> int:
    """The command."""
    try:
        found, sent = replay(environment.home())
    except GanpipeError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{sent} of {found} runs with unsent records are complete now" if found else "nothing was left to send")
    return 0 if sent == found else 1


if __name__ == "__main__":
    sys.exit(main())
