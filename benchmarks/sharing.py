"""DCGAN's training on a host that is not its own: beside a busy process, and two at once.

A training computes with as many threads as it is told (`cluster.cpus_per_worker`). Threads meet at barriers, several
hundred times per step; where another process has one of their cores, all wait for the thread that it has put aside.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ganpipe.data.settings import DataSettings

from .data import mnist
from .measure import Row, alternate, median, ratio
from .training import BATCH, CASES, SECONDS, InOwnProcess, bare_loop


def sharing(folder: Path, rounds: int) -> list[Row]:
    """With one thread per training and with two, on two cores."""
    os.environ["GANPIPE_CACHE"] = str(folder / "cache")
    shards = mnist(folder / "shards", DataSettings(source="mnist", image_size=CASES["dcgan"][0]))
    rows = []
    for num_threads in (1, 2):
        make = functools.partial(bare_loop, "dcgan", shards, "auto", BATCH, num_threads)
        with InOwnProcess(make) as one, InOwnProcess(make) as other, ThreadPoolExecutor(2) as threads:
            things = {
                "alone": functools.partial(one.window, SECONDS),
                "beside": functools.partial(_beside_a_busy_process, one),
                "both": functools.partial(_at_once, threads, one, other),
            }
            found = alternate(things, rounds)
        speeds = f"{median(found['alone']):,.0f} images/s alone, {median(found['beside']):,.0f} beside a busy process, "
        speeds += f"{median(found['both']):,.0f} by two at once"
        words = f"{num_threads} thread{'s' if num_threads > 1 else ''} per training"
        goals = ("≥ 0.4", "≥ 0.9") if num_threads == 1 else ("", "")
        rows.append(
            Row(
                f"`dcgan` beside a busy process, over alone; {words}",
                ratio(found, "beside", "alone"),
                "x",
                goals[0],
                speeds,
            )
        )
        rows.append(
            Row(
                f"two `dcgan` at once, over one after the other; {words}",
                ratio(found, "both", "alone"),
                "x",
                goals[1],
                speeds,
            )
        )
    return rows


def _at_once(threads: ThreadPoolExecutor, *processes: InOwnProcess) -> float:
    return sum(threads.map(lambda process: process.window(SECONDS), processes))


def _beside_a_busy_process(process: InOwnProcess) -> float:
    with _busy():
        return process.window(SECONDS)


@contextmanager
def _busy() -> Iterator[None]:
    """A process that computes all the time."""
    busy = multiprocessing.get_context("spawn").Process(target=_compute, daemon=True)
    busy.start()
    try:
        yield
    finally:
        busy.terminate()
        busy.join()


def _compute() -> None:
    while True:
        sum(range(100_000))
