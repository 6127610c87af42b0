"""Ends a flow run when the worker that started it is gone, and says how to go on.

Without this, a flow whose worker died would run on with nobody who could cancel it, until its next line of output
found nobody to read it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.runtime import deployment, flow_run

from . import run_stage

LOOK_EVERY_SECONDS = 0.2

Log = logging.Logger | logging.LoggerAdapter[Any]


@contextmanager
def ended_with_its_worker(logger: Log) -> Iterator[None]:
    """Within this, SIGTERM reaches this process when the worker that started it is gone; Prefect then ends the flow.

    Whatever ends it before its time (that, a cancellation, a service manager), its last line says how to go on. A flow
    that no deployment started has no worker, and a flow within another leaves this to the outer one.
    """
    stopped = threading.Event()
    deployed = bool(deployment.id)
    if deployed:
        threading.Thread(target=_watch, args=(os.getppid(), stopped, logger), daemon=True).start()
    try:
        yield
    except Exception:
        raise
    except BaseException:  # SIGTERM or Ctrl-C
        stopped.set()
        logger.warning("ended before its time; what is done is kept. %s", how_to_go_on(deployed))
        # Prefect may end this process by a signal, with the last lines still unsent.
        for handler in logging.getLogger("prefect.flow_runs").handlers:
            handler.flush()
        raise
    finally:
        stopped.set()


def how_to_go_on(deployed: bool) -> str:
    """What a person does about a run that ended before its time; Prefect retries only what a deployment started."""
    if deployed:
        return (
            f"`prefect flow-run retry {flow_run.id}` goes on from the last checkpoint (as does a new run of the same)"
        )
    return "The same command again goes on from the last checkpoint"


def _watch(worker: int, stopped: threading.Event, logger: Log) -> None:
    began = time.monotonic()
    while not stopped.wait(LOOK_EVERY_SECONDS):
        if os.getppid() != worker:
            # A worker that ends in order sends a SIGTERM itself; a second one would interrupt what the first began.
            if stopped.wait(1.0) or run_stage.ended_since(began):
                return
            # Nobody reads this process's output any more: a write would raise, wherever it happens.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            logger.error("the worker that started this run (process %d) is gone; ending it", worker)
            os.kill(os.getpid(), signal.SIGTERM)
            return
