"""A parallel map over processes that keeps the order and bounds the memory; and progress bars."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from tqdm import tqdm

from ..errors import GanpipeError

_OBJECTS_PER_COLLECTION = 100_000

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


def _leave_when_parent_dies() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


@contextlib.contextmanager
def rare_collections() -> Iterator[None]:
    """Inside this context, Python looks for cycles of garbage after 100,000 new objects instead of after 700.

    Work on many small items makes short-lived objects without cycles, and looking at them takes a tenth of its time.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_PER_COLLECTION, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _start_worker() -> None:
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends its workers
    # When the parent is killed, a pool's workers would wait for work for ever.
    threading.Thread(target=_leave_when_parent_dies, daemon=True).start()


def ordered_map(
    function: Callable[[TaskT], ResultT], tasks: Iterable[TaskT], num_processes: int
) -> Generator[ResultT, None, None]:
    """`map(function, tasks)` over processes: results in the order of the tasks, at most four waiting tasks per process.

    Processes are spawned, not forked (a fork of a process with threads may deadlock), so function and tasks must be
    picklable. With `num_processes` 1 the work is done in this process. Close the generator to end the processes.

    Raises:
        GanpipeError: a process died.
    """
    if num_processes <= 1:
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn"), initializer=_start_worker)
    pending: deque[Future[ResultT]] = deque()
    try:
        for task in tasks:
            pending.append(pool.submit(function, task))
            if len(pending) >= 4 * num_processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise GanpipeError(
            "a process that was decoding images died (killed, or out of memory); "
            "free some memory or lower data.max_pixels, then run again"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def progress(description: str, total: int | None, unit: str) -> tqdm[Any]:
    """A progress bar on stderr. If stderr is not a terminal but a log, it writes a line every ten seconds only.

    Args:
        total: number of units; None if it is not known.
        unit: the name of a unit; "B" (bytes) is shown as KiB, MiB, ...
    """
    return tqdm(
        desc=description,
        total=total,
        unit=unit,
        unit_scale=unit == "B",
        unit_divisor=1024,
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
        smoothing=0.1,
        leave=sys.stderr.isatty(),
    )
