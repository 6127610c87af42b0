"""A map over all hosts of a Ray cluster that keeps the order and bounds what is under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from ..errors import GanpipeError, UnavailableError
from .failures import unwrap_error

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")
_WAITING_PER_CPU = 2
_MAX_RETRIES = 3
"""How often a task is done again whose host was lost."""


def map_on_cluster(function: Callable[[TaskT], ResultT], tasks: Iterable[TaskT]) -> Generator[ResultT, None, None]:
    """`map(function, tasks)` as Ray tasks of a CPU each: results in the order of the tasks. Ray must be connected.

    Hosts that join are used, the tasks of hosts that are lost are done again.

    Raises:
        GanpipeError: as `function`.
        UnavailableError: hosts were lost again and again, or Ray is gone.
    """
    import ray
    from ray.exceptions import RayError

    remote: Any = ray.remote(num_cpus=1, max_retries=_MAX_RETRIES)(_call)
    pending: deque[Any] = deque()
    try:
        shared = ray.put(function)  # once, because it may hold much
        for task in tasks:
            pending.append(remote.remote(shared, task))
            if len(pending) >= _WAITING_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1))):
                yield ray.get(pending.popleft())
        while pending:
            yield ray.get(pending.popleft())
    except RayError as error:
        cause = unwrap_error(error)
        if isinstance(cause, GanpipeError):
            raise cause from None
        raise UnavailableError(f"the Ray cluster did not do its part of the work: {cause}") from error
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)


def _call(function: Callable[[TaskT], ResultT], task: TaskT) -> ResultT:
    return function(task)
