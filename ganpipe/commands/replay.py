"""`ganpipe replay`: sends to MLflow what runs recorded while it did not answer."""

from __future__ import annotations

import argparse

from .. import environment
from ..errors import UnavailableError
from ..tracking.replay import replay


def main(argv: list[str]) -> int:
    argparse.ArgumentParser(
        prog="ganpipe replay",
        description="Send to MLflow what runs of this checkout recorded while it did not answer. May be repeated.",
    ).parse_args(argv)
    found, sent = replay(environment.home())
    if sent < found:
        raise UnavailableError(f"of {found} runs with unsent records {found - sent} have some left; try again")
    print(f"the records of {found} runs are complete now" if found else "nothing was left to send")
    return 0
