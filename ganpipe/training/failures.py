"""Which errors of a worker are worth another try: a lost worker, unreachable storage, but no error of the code."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from ..errors import GanpipeError, UnavailableError

_OF_THE_CODE = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, RuntimeError, SyntaxError,
    TypeError, ValueError, FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError,
)  # fmt: skip
"""Kinds of errors that the same code raises again with the same data. Errors of storage, networks and Ray are
of other kinds, and may pass. A missing or unreadable file is listed here, because it does not appear by itself."""
FAILS_AGAIN = "an error of the code, which another try would meet again"
_OWN_LINES = re.compile(r'File "(?:[^"]*/)?(ganpipe/(?:\w+/)*\w+\.py)", line (\d+)')
"""In a traceback: the lines in this project's own files, wherever a host of the cluster has them."""


class LostWorker(UnavailableError):
    """Another worker of the group is gone."""


@contextlib.contextmanager
def exchanging() -> Iterator[None]:
    """Stands around everything that workers exchange: an error in such a block means that another worker has ended.

    Raises:
        LostWorker: in place of the RuntimeError of torch.distributed, the kind that any operation of torch raises.
    """
    try:
        yield
    except RuntimeError as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LostWorker(f"another worker was lost: {first}") from error


def is_transient(error: BaseException) -> bool:
    """Whether another try may succeed although nobody has fixed anything."""
    from ray.exceptions import RayError

    error = unwrap_error(error)
    if isinstance(error, GanpipeError | RayError):
        return isinstance(error, UnavailableError | RayError)
    return not isinstance(error, _OF_THE_CODE) and type(error) is not Exception


def unwrap_error(error: BaseException) -> BaseException:
    """The error that a task or an actor of Ray raised, where `error` is Ray's wrapper of it."""
    from ray.exceptions import RayTaskError

    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error


def describe_error(error: BaseException, trace: str) -> str:
    """One line: what went wrong, and where in this project's code unless the error is for the person at the terminal.

    Args:
        trace: a text with the error's traceback.
    """
    error = unwrap_error(error)
    message = (str(error).strip().splitlines() or [""])[-1]
    if isinstance(error, GanpipeError):
        return message
    message = f"{type(error).__name__}: {message}"
    own_lines = [] if is_transient(error) else _OWN_LINES.findall(trace)
    return f"{message} ({':'.join(own_lines[-1])})" if own_lines else message
