"""What Prefect's logger shows on the console of `make run`."""

from __future__ import annotations

import logging


class _NoTraceback(logging.Formatter):
    """Formats as another formatter does, without the traceback: a stage's error is one line, said at the end."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        plain = logging.makeLogRecord(record.__dict__)
        plain.exc_info, plain.exc_text = None, None
        return self._inner.format(plain)


def without_tracebacks() -> None:
    """Leave tracebacks out of the console; the run's page keeps them."""
    for handler in logging.getLogger().handlers:
        if handler.formatter is not None:
            handler.setFormatter(_NoTraceback(handler.formatter))
