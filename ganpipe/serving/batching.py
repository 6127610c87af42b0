"""Many requests, few forward passes: rows wait in a bounded queue, and one thread generates groups of them together."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from .query import Row
from .version import ROWS_PER_PASS, ServedVersion

logger = logging.getLogger("ganpipe.serving")

Image = np.ndarray
"""uint8, (H, W, C)."""
_Waiting = tuple[ServedVersion, Row, "Future[Image]"]


class QueueFull(Exception):
    """The queue has no room for the images of a request.

    Attributes:
        retry_seconds: estimated time until there is room again.
    """

    def __init__(self, retry_seconds: int) -> None:
        super().__init__(f"too many images are waiting; try again in {retry_seconds} s")
        self.retry_seconds = retry_seconds


class Batcher:
    """Generates rows in one thread. Rows that can share a forward pass form a group (see `ServedVersion.group`); the
    groups take turns, one forward pass each."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._groups: OrderedDict[Any, deque[_Waiting]] = OrderedDict()
        self._num_waiting = 0
        self._pass_seconds = 0.05
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="generator", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Generate the images that are waiting, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread that generates images is running."""
        return self._thread.is_alive()

    def submit(self, version: ServedVersion, rows: Sequence[Row]) -> list[Future[Image]]:
        """Queue rows for this version. Returns one future per row.

        Raises:
            QueueFull: there is no room for all rows; none of them was queued.
        """
        futures: list[Future[Image]] = [Future() for _ in rows]
        with self._changed:
            if self._num_waiting + len(rows) > self._max_waiting:
                seconds = self._num_waiting / ROWS_PER_PASS * self._pass_seconds
                raise QueueFull(min(60, max(1, math.ceil(seconds))))
            for row, future in zip(rows, futures, strict=True):
                group = (version.identity, *version.group(row))
                self._groups.setdefault(group, deque()).append((version, row, future))
            self._num_waiting += len(rows)
            self._changed.notify()
        return futures

    def _take(self) -> list[_Waiting]:
        """The rows for the next forward pass, from the group whose turn it is; empty when the thread should end."""
        with self._changed:
            self._changed.wait_for(lambda: self._groups or self._stopping)
            if not self._groups:
                return []
            key, group = next(iter(self._groups.items()))
            taken = [group.popleft() for _ in range(min(ROWS_PER_PASS, len(group)))]
            if group:
                self._groups.move_to_end(key)
            else:
                del self._groups[key]
            self._num_waiting -= len(taken)
            return taken

    def _work(self) -> None:
        while taken := self._take():
            # Rows whose client has disconnected are left out; after this call, a future cannot be cancelled.
            asked = [item for item in taken if item[2].set_running_or_notify_cancel()]
            if asked:
                self._generate(asked)

    def _generate(self, asked: list[_Waiting]) -> None:
        version, begin = asked[0][0], time.monotonic()
        try:
            images = version.images([row for _, row, _ in asked])
        except Exception as error:  # the version's own code can raise anything; each request reports the failure
            logger.error("version %d failed on %r", version.number, asked[0][1])
            for _, _, future in asked:
                future.set_exception(error)
            return
        self._pass_seconds = 0.9 * self._pass_seconds + 0.1 * (time.monotonic() - begin)
        for (_, _, future), image in zip(asked, images, strict=True):
            future.set_result(image)
