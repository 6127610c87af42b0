"""Jobs of a Ray cluster that this process is no part of: submitted or found again, followed, ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UnavailableError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PATIENCE_SECONDS = 300.0
"""How long the job server may be unreachable before this process stops following the job, which goes on."""
ASK_SECONDS, STOP_SECONDS = 6.0, 2.0
"""Time for a job to end by itself, then to end once it is stopped: 8 s, since this process is killed after 10 s."""
_PAUSE_SECONDS = 1.0
_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)


def is_job_server(address: str) -> bool:
    """Whether RAY_ADDRESS is that of a job server (`http://…`), not of a cluster that this host is part of."""
    return address.startswith(("http://", "https://"))


def client_of(address: str) -> JobSubmissionClient:
    """A client of the job server; RAY_AUTH_MODE and RAY_AUTH_TOKEN are Ray's own.

    Raises:
        UnavailableError: nobody answers there, or not as a job server does.
    """
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except Exception as error:  # ConnectionError, RuntimeError, requests' own, AuthenticationError
        raise UnavailableError(
            f"Ray's job server at {address} cannot be used: {_first_line(error)}; check RAY_ADDRESS, RAY_AUTH_MODE and "
            "RAY_AUTH_TOKEN, and that the cluster runs"
        ) from error


@dataclass(frozen=True)
class Job:
    """What is run in the cluster.

    Attributes:
        name: unique; two jobs of one name never run at the same time.
        entrypoint: the command; a constant, never built from settings.
        folder: sent along as the job's working directory, beside this project's code.
        has_result: tells whether the job has left its result.
        request_stop: makes it end by itself, at a checkpoint.
    """

    name: str
    entrypoint: str
    folder: Path
    has_result: Callable[[], bool]
    request_stop: Callable[[], None] | None = None


def run(address: str, job: Job) -> str:
    """Run `job` at the job server `address`, show its output, and wait for its end.

    A job of that name that has not ended is followed instead, whoever submitted it; one that has left its result is not
    run again. SIGINT and SIGTERM end the job.

    Returns:
        What Ray says about its end, empty where it succeeded.

    Raises:
        UnavailableError: the job server is away for long. The job goes on.
        KeyboardInterrupt: this process was told to end, and so was the job.
    """
    client = client_of(address)
    with _raising_unavailable(address, job.name):
        return asyncio.run(_run(client, job))


async def _run(client: JobSubmissionClient, job: Job) -> str:
    """See `run`; from the first moment on a signal ends the job, not only this process."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in _INTERRUPTIONS:
        loop.add_signal_handler(number, task.cancel)
    try:
        _submit(client, job)
        return await _follow(client, job.name)
    except asyncio.CancelledError:
        await _stop(client, job)
        raise KeyboardInterrupt from None
    finally:
        for number in _INTERRUPTIONS:
            loop.remove_signal_handler(number)


def _submit(client: JobSubmissionClient, job: Job) -> None:
    """Submit the job, unless there is one of that name to follow."""
    name, where = job.name, client.get_address()
    status = {other.submission_id: other.status for other in client.list_jobs()}.get(name)
    if status is not None and status.is_terminal() and not (status == "SUCCEEDED" and job.has_result()):
        client.delete_job(name)
        status = None
    if status is not None:
        print(f"found the job {name} at {where}", flush=True)
        return
    code = str(Path(__file__).parents[1])
    sent = {"working_dir": str(job.folder), "py_modules": [code]}
    client.submit_job(entrypoint=job.entrypoint, submission_id=name, runtime_env=sent)
    print(f"submitted to {where} as the job {name}", flush=True)


async def _follow(client: JobSubmissionClient, name: str) -> str:
    """Print the job's output until it has ended; what Ray says about its end, empty where it succeeded."""
    num_shown, last_answer = 0, time.monotonic()
    while True:
        try:
            num_shown = await _show(client, name, num_shown)
            info = client.get_job_info(name)
            last_answer = time.monotonic()
            if info.status.is_terminal():
                return "" if info.status == "SUCCEEDED" else (info.message or str(info.status))
        except Exception:  # the server is away: requests', aiohttp's and Ray's own errors
            if time.monotonic() - last_answer > PATIENCE_SECONDS:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


async def _show(client: JobSubmissionClient, name: str, num_shown: int) -> int:
    """Print what the job says, from its character `num_shown` on, until it ends or the connection does.

    Returns:
        How many characters it has said.
    """
    num_seen = 0
    async for text in client.tail_job_logs(name):  # each connection begins with the job's first line
        print(text[max(0, num_shown - num_seen) :], end="", flush=True)
        num_seen += len(text)
        num_shown = max(num_shown, num_seen)
    return num_shown


async def _stop(client: JobSubmissionClient, job: Job) -> None:
    """End the job: ask it first, so that it writes a checkpoint, then stop it."""
    print(f"stopping the job {job.name}", flush=True)
    if job.request_stop is not None:
        job.request_stop()
        await _wait_for_end(client, job.name, ASK_SECONDS)
    client.stop_job(job.name)
    await _wait_for_end(client, job.name, STOP_SECONDS)


async def _wait_for_end(client: JobSubmissionClient, name: str, seconds: float) -> None:
    """Return when the job has ended, or the time is over."""
    deadline = time.monotonic() + seconds
    while not client.get_job_status(name).is_terminal() and time.monotonic() < deadline:
        await asyncio.sleep(0.1)


@contextlib.contextmanager
def _raising_unavailable(address: str, name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # requests', aiohttp's and Ray's own errors
        raise UnavailableError(
            f"Ray's job server at {address} does not answer: {_first_line(error)}; if the job {name} was submitted it "
            "goes on, and the same command finds it again"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
