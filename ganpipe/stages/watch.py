"""ingest --watch: tell Prefect when the source's images change, so that a deployment can run on new data."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

from .. import environment, events, services
from ..data import sources
from ..errors import GanpipeError
from ..params import load_params


def main(argv: list[str]) -> int:
    """Watch until interrupted.

    Raises:
        GanpipeError: params.yaml or the source is wrong when watching begins, or no Prefect server is there to be told.
    """
    options = _arguments(argv)
    params = load_params()
    source = sources.load(params.data.source)(params.source_settings)
    source.fingerprint()  # what is wrong with the source is said now
    service = services.running("prefect", environment.home())
    if service is None:
        raise GanpipeError("no Prefect server to tell: set PREFECT_API_URL, or start this checkout's own: ganpipe up")
    print(f"watching the source {params.data.source}; changes are told to Prefect at {service.url}", flush=True)
    resource = {"prefect.resource.id": f"ganpipe.source.{params.data.source}", "prefect.resource.name": "images"}

    def tell(before: str, after: str) -> bool:
        payload = {"source": params.data.source, "before": before, "after": after}
        return events.emit(events.DATA_CHANGED, resource, payload)

    watch(source.fingerprint, tell, options.every, options.settle)
    return 0


def watch(
    fingerprint: Callable[[], str],
    tell: Callable[[str, str], bool],
    every_seconds: float,
    settle_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Call `tell` with the fingerprints before and after each change that has settled; never returns.

    A change is settled when nothing more changed for `settle_seconds`: a copy that is under way is one change. A
    change that `tell` could not pass on is tried again. Unreachable inputs (a share that is not mounted) are no change.
    """
    told = _look(fingerprint)
    last, since = told, 0.0
    while True:
        sleep(every_seconds)
        now = _look(fingerprint)
        if now is None:
            continue
        if told is None:
            told = now
        since = since + every_seconds if now == last else 0.0
        last = now
        if now != told and since >= settle_seconds:
            if tell(told, now):
                print(f"{time.strftime('%H:%M:%S')} the images changed: told Prefect", flush=True)
                told = now
            else:
                print(f"{time.strftime('%H:%M:%S')} the images changed; Prefect does not answer, trying on", flush=True)


def _look(fingerprint: Callable[[], str]) -> str | None:
    try:
        return fingerprint()
    except GanpipeError as error:
        print(f"{time.strftime('%H:%M:%S')} {error}", flush=True)
        return None


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ganpipe ingest --watch", description=__doc__)
    parser.add_argument("--watch", action="store_true", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--every", type=_seconds, default=5.0, metavar="SECONDS", help="between two looks; default 5")
    parser.add_argument(
        "--settle",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="without a change before it is told; default 10",
    )
    return parser.parse_args(argv)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a number above 0")
    return seconds
