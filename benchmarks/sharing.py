"""DCGAN's training on a host that is not its own: beside a busy process, and two at once.

A training computes with as many threads as it is told (`cluster.cpus_per_worker`). Threads meet at barriers, several
hundred times per step; where another process has one of their cores, all wait for the thread that it has put aside.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ganpipe.data.settings import DataSettings

from .data import mnist
from .measure import Row, alternate, median, ratio
from .training import BATCH, CASES, SECONDS, InOwnProcess, bare_loop


def sharing(folder: Path, rounds: int) -> list[Row]:
    """With one thread per training and with two, on two cores; all over one training alone with two."""
    os.environ["GANPIPE_CACHE"] = str(folder / "cache")
    shards = mnist(folder / "shards", DataSettings(source="mnist", image_size=CASES["dcgan"][0]))
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(2))
        things: dict[str, Callable[[], float]] = {}
        for num_threads in (1, 2):
            make = functools.partial(bare_loop, "dcgan", shards, "auto", BATCH, num_threads)
            pair = [stack.enter_context(InOwnProcess(make)) for _ in range(2)]
            things[f"alone, {num_threads}"] = functools.partial(pair[0].window, SECONDS)
            things[f"beside, {num_threads}"] = functools.partial(_beside_a_busy_process, pair[0])
            things[f"both, {num_threads}"] = functools.partial(_at_once, threads, *pair)
        found = alternate(things, rounds)
    rows = []
    for num_threads, goals in ((1, ("≥ 0.4", "≥ 0.9")), (2, ("", ""))):
        words = f"`cluster.cpus_per_worker: {num_threads}`"
        alone, beside, both = (median(found[f"{name}, {num_threads}"]) for name in ("alone", "beside", "both"))
        speeds = f"{alone:,.0f} images/s alone, {beside:,.0f} beside a busy process, {both:,.0f} by two at once"
        for name, what, goal in (
            ("beside", "`dcgan` beside a busy process, over alone with two threads", goals[0]),
            ("both", "two `dcgan` at once, over one after the other with two threads", goals[1]),
        ):
            rows.append(Row(f"{what}; {words}", ratio(found, f"{name}, {num_threads}", "alone, 2"), "x", goal, speeds))
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
