"""How long until something happens: the first training step, the help, and a pipeline that has nothing to do."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from ganpipe import services

from .checkout import Checkout, make_checkout
from .measure import Row, alternate, median

_FIRST_STEP = "samples/0000001.png"
"""The grid that is drawn after the first update shows that it was taken."""


def startup(folder: Path, rounds: int) -> list[Row]:
    """All of them."""
    return [*_first_step(folder, rounds), *_nothing_to_do(folder, rounds)]


def _first_step(folder: Path, rounds: int) -> list[Row]:
    """From typing `ganpipe train` to the first training step, with Ray running and without."""
    checkout = make_checkout(
        folder / "train", train__samples_at_updates=[1], train__num_images=10**7, tune__num_trials=0
    )
    for stage in ("ingest", "tune"):
        checkout.run("ganpipe", stage)

    work_by_cores = []

    def cold() -> float:
        checkout.run("ganpipe", "down")
        return _until_first_step(checkout)[0]

    def warm() -> float:
        seconds, worked = _until_first_step(checkout)
        work_by_cores.append(worked / psutil.cpu_count())
        return seconds

    try:
        seconds = alternate({"cold": cold, "warm": warm}, rounds)
    finally:
        checkout.run("ganpipe", "down")
    command = "from `ganpipe train` to the first training step"
    return [
        Row(f"{command}, Ray not running", median(seconds["cold"]), "s", "≤ 20"),
        Row(f"{command}, Ray running", median(seconds["warm"]), "s", "≤ 6"),
        Row("the processors' work for the latter, if it were spread evenly over them", median(work_by_cores), "s"),
    ]


def _until_first_step(checkout: Checkout) -> tuple[float, float]:
    """Seconds, and the sum over all processors of those in which they worked."""
    work = checkout.root / ".ganpipe" / "work"
    shutil.rmtree(work, ignore_errors=True)
    start, worked = time.perf_counter(), _seconds_of_work()
    process = checkout.start("ganpipe", "train")
    try:
        while not list(work.glob(f"*/{_FIRST_STEP}")):
            if process.poll() is not None:
                raise RuntimeError(
                    f"ganpipe train ended with exit code {process.returncode}; run it in {checkout.root}"
                )
            time.sleep(0.02)
        return time.perf_counter() - start, _seconds_of_work() - worked
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        time.sleep(3)  # its workers end after it; the next start is not to wait for their cores


def _seconds_of_work() -> float:
    """What all processors of this machine have worked since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def _nothing_to_do(folder: Path, rounds: int) -> list[Row]:
    """A small pipeline that has run, run again: by DVC, and by the Prefect flow with its server running."""
    checkout = make_checkout(
        folder / "pipeline",
        data__limit=2000,
        train__gan="gan",
        train__num_images=2000,
        tune__num_trials=0,
        evaluate__num_samples=500,
        evaluate__num_real=500,
        evaluate__kid_subset_size=100,
        register__conditions={},
    )
    server = {**checkout.environment, **_prefect(checkout)}

    def timed(*command: str, environment: dict[str, str] | None = None) -> Callable[[], float]:
        def run() -> float:
            start = time.perf_counter()
            checkout.run(*command, environment=environment)
            return time.perf_counter() - start

        return run

    try:
        checkout.run("python", "-m", "pipelines")
        seconds = alternate(
            {
                "help": timed("ganpipe", "--help"),
                "dvc": timed("dvc", "repro"),
                "flow": timed("python", "-m", "pipelines", environment=server),
            },
            rounds,
        )
    finally:
        checkout.run("ganpipe", "down")
    return [
        Row("`dvc repro` with nothing to do", median(seconds["dvc"]), "s", "≤ 1.5"),
        Row("the whole Prefect flow with nothing to do, server running", median(seconds["flow"]), "s", "≤ 6"),
        Row("`ganpipe --help`", median(seconds["help"]), "s", "≤ 0.4"),
    ]


def _prefect(checkout: Checkout) -> dict[str, str]:
    """What names the checkout's Prefect server to its clients."""
    server = services.ensure("prefect", checkout.root)
    return services.client_environment({"prefect": server}, checkout.root)
