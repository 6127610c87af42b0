"""`ganpipe up`, `ganpipe down`, `ganpipe services`: the background services of this checkout."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import services
from ..environment import home, repo_root
from ..service_kinds import KINDS
from ..tracking.connection import sqlite_path
from ..tracking.runs import Tracker

ABOUT = {
    "up": "Start the background services of this checkout; those that run already stay as they are.",
    "down": "Stop the background services of this checkout. Outputs, models and settings stay.",
    "services": "The background services of this checkout: where their pages are, or that they do not run.",
}


def _show(root: Path) -> None:
    for name, service in services.status(root).items():
        if service is None:
            print(f"{name:<8} {services.crash_message(name, root) or 'stopped'}")
        elif service.pid is None:
            print(f"{name:<8} {service.url}  (from {KINDS[name].variable})")
        else:
            health = "" if services.is_healthy(service) else "  does not answer"
            log = services.STATE / f"{name}.log"
            note = KINDS[name].note
            print(f"{name:<8} {service.url}{note}  address {service.address}  pid {service.pid}  log {log}{health}")


def _relocate_database(root: Path) -> None:
    """Correct the addresses in MLflow's database if the checkout was moved, see `tracking/relocation.py`."""
    tracker = Tracker.at(root, "")
    if (database := sqlite_path(tracker.uri)) is not None and database.exists():
        tracker.check()
        tracker.client()


def main(argv: list[str]) -> int:
    """`argv[0]` is the command: up, down or services."""
    command = argv[0]
    parser = argparse.ArgumentParser(prog=f"ganpipe {command}", description=ABOUT[command])
    if command != "services":
        parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(KINDS)}; default: all")
    options = parser.parse_args(argv[1:])
    root = home(repo_root())
    if command == "up":
        if "mlflow" in (options.names or KINDS):
            _relocate_database(root)
        services.ensure_all(options.names or KINDS, root)
    elif command == "down":
        stopped = services.stop(root, options.names or KINDS)
        print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
        return 0
    _show(root)
    return 0
