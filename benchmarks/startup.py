"""How long until something happens: the first training step, the help, and a pipeline that has nothing to do."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

from .checkout import Checkout, make_checkout
from .measure import Row, alternate, median

_FIRST_STEP = "samples/0000001.png"
"""The grid that is drawn after the first update shows that it was taken."""


def first_step(folder: Path, rounds: int) -> list[Row]:
    """From typing `ganpipe train` to the first training step, with Ray running and without."""
    checkout = make_checkout(
        folder / "train", train__samples_at_updates=[1], train__num_images=10**7, tune__num_trials=0
    )
    for stage in ("ingest", "tune"):
        checkout.run("ganpipe", stage)

    def cold() -> float:
        checkout.run("ganpipe", "down")
        return _seconds_to_first_step(checkout)

    def warm() -> float:
        return _seconds_to_first_step(checkout)

    try:
        seconds = alternate({"cold": cold, "warm": warm}, rounds)
    finally:
        checkout.run("ganpipe", "down")
    command = "from `ganpipe train` to the first training step"
    return [
        Row(f"{command}, Ray not running", median(seconds["cold"]), "s", "≤ 20"),
        Row(f"{command}, Ray running", median(seconds["warm"]), "s", "≤ 6"),
    ]


def _seconds_to_first_step(checkout: Checkout) -> float:
    work = checkout.root / ".ganpipe" / "work"
    shutil.rmtree(work, ignore_errors=True)
    start = time.perf_counter()
    process = checkout.start("ganpipe", "train")
    try:
        while not list(work.glob(f"*/{_FIRST_STEP}")):
            if process.poll() is not None:
                raise RuntimeError(
                    f"ganpipe train ended with exit code {process.returncode}; run it in {checkout.root}"
                )
            time.sleep(0.02)
        return time.perf_counter() - start
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        time.sleep(3)  # its workers end after it; the next start is not to wait for their cores
