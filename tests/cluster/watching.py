"""Looking at Ray's processes while something runs on them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import psutil


@contextlib.contextmanager
def watching(head: str, look: Callable[[str, psutil.Process], None]) -> Iterator[None]:
    """While the context lasts, call `look` ten times a second with title and process of whatever belongs to the Ray
    head at `head`, its workers with it."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    line, above = process.cmdline(), process.parent()
                    # The raylet, the parent of the workers, is told the head's address.
                    if any(head in part for part in [*line, *(above.cmdline() if above else [])]):
                        look((line or [""])[0], process)
            ended.wait(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
