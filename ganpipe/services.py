"""The background services of one checkout: Prefect's server, a Ray head, MLflow's pages. All on 127.0.0.1.

Each is one process in a session of its own that outlives whoever started it, with its log and a small JSON record
(pid, start time, URL) under `.ganpipe/services/`. `ensure` finds a running one again or starts it, under a file
lock, so that any number of callers share one. A service that the environment names is used and never started.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from . import environment, processes
from .errors import GanpipeError, UnavailableError
from .redaction import without_user_info
from .service_kinds import KINDS, Kind, Launch, prefect_home

STATE = Path(".ganpipe") / "services"
START_TIMEOUT_SECONDS = 120.0
SHORT_LIFE_SECONDS = 60.0
"""A service that lived shorter than this would end in the same way again: somebody has to fix the cause."""


@dataclass(frozen=True)
class Running:
    """A service that answers."""

    name: str
    url: str
    """The page for people."""
    address: str
    """What a client is given: the value of the service's variable."""
    pid: int | None = None
    """None where it was named in the environment, not started here."""
    started: float = 0.0
    """Seconds since the epoch; with the pid it identifies the process."""
    folder: str = ""
    """A temporary folder to remove with the service."""
    root: str = ""
    """The checkout as it was named when the service was started; a checkout may be moved or copied."""


def named_in_environment(name: str, variables: Mapping[str, str] | None = None) -> Running | None:
    """The service that the environment names, if it names one."""
    address = (os.environ if variables is None else variables).get(_kind(name).variable)
    if not address:
        return None
    if (name, address) == ("ray", "auto") and len(found := rays_of_this_host()) == 1:
        address = found[0]
    page = address.removesuffix("/").removesuffix("/api") if name == "prefect" else address
    # The page is shown; the address may hold a password, which clients need.
    return Running(name=name, url=without_user_info(page), address=address)


def running(name: str, root: Path) -> Running | None:
    """The service that the environment names, else this checkout's own one if it lives; no health check.

    A flow names this checkout's own services in the environment of its stages: such a service counts as own.
    """
    own, service = _own(name, root), named_in_environment(name)
    return own if service is None or (own is not None and own.address == service.address) else service


def ray_address(root: Path) -> str | None:
    """`host:port` of the Ray cluster to use: `RAY_ADDRESS`, else this checkout's head if it runs, else None."""
    service = running("ray", root)
    return (service.address or None) if service else None


def rays_of_this_host() -> list[str]:
    """`host:port` of each Ray that runs here, whoever started it: what RAY_ADDRESS=auto stands for.

    Ray looks for them in the same way, but takes a head on 127.0.0.1 to be on the host's outer address, and tries for
    most of a minute to reach it there.
    """
    flag = "--gcs-address="
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return sorted({part.removeprefix(flag) for line in lines for part in line if part.startswith(flag)})


def crash_message(name: str, root: Path) -> str | None:
    """A sentence if this checkout's own service has ended without being stopped, with the end of its log; else None."""
    record = _record(root, name)
    if record is None or record.pid is None or processes.is_alive(record.pid, record.started):
        return None
    if record.started < psutil.boot_time() or not _log(name, root).exists():
        return None  # it ended with the machine, or nothing is left of it
    return f"this checkout's {name} has ended by itself.{_tail(_log(name, root))}"


def crash_error(name: str, root: Path, address: str) -> GanpipeError | None:
    """The error of a client that did not reach `address`, if this checkout's own service ran there and has ended."""
    record = _record(root, name)
    if record is None or record.pid is None or record.address != address:
        return None
    # A service whose parts have died needs a moment to end.
    processes.wait_gone(processes.tree(record.pid), timeout_seconds=3.0)
    message = crash_message(name, root)
    if message is None:
        return None
    lived = _log(name, root).stat().st_mtime - record.started
    return GanpipeError(message) if lived < SHORT_LIFE_SECONDS else UnavailableError(message)


def ensure(name: str, root: Path, timeout_seconds: float = START_TIMEOUT_SECONDS) -> Running:
    """The service, started if it does not run yet, and healthy.

    Raises:
        GanpipeError: it died (with the end of its log).
        UnavailableError: it did not answer in time, as on a machine with too much to do.
    """
    from filelock import FileLock, Timeout

    if (service := named_in_environment(name)) and not _was_own(service, root):
        return service
    folder = root / STATE
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Waiting for another caller that starts the same service takes as long as starting it.
        with FileLock(folder / f"{name}.lock", timeout=timeout_seconds + 30):
            service = _own(name, root)
            if service is not None:
                # A folder in /tmp may have been swept away under a Ray that still answers and cannot be joined.
                intact = not service.folder or (Path(service.folder) / "session_latest").exists()
                # Prefect's server still looks for its database where the checkout was.
                intact = intact and service.root in ("", str(root))
                if intact and service.address and _wait_healthy(_health(service), timeout_seconds=10.0):
                    return service
                _end(service, root)
            else:
                if message := crash_message(name, root):
                    print(f"warning: {message}\nstarting {name} anew", file=sys.stderr, flush=True)
                _sweep(name, root)
            return _start(name, root, timeout_seconds)
    except Timeout:
        raise UnavailableError(f"{name}: another process has been starting it for {timeout_seconds:.0f} s") from None


def ensure_all(names: Iterable[str], root: Path) -> dict[str, Running]:
    """`ensure` for several, side by side."""
    chosen = list(names)
    with ThreadPoolExecutor(max_workers=max(1, len(chosen))) as pool:
        return dict(zip(chosen, pool.map(lambda name: ensure(name, root), chosen), strict=True))


def stop(root: Path, names: Iterable[str] = tuple(KINDS)) -> list[str]:
    """Stop this checkout's services, and return the names of those that ran."""
    from filelock import FileLock

    stopped = []
    for name in names:
        _kind(name)
        if not (root / STATE).is_dir():
            continue
        with FileLock(root / STATE / f"{name}.lock", timeout=START_TIMEOUT_SECONDS + 30):
            record = _record(root, name)
            if record is not None and record.pid is not None and processes.is_alive(record.pid, record.started):
                _end(record, root)
                stopped.append(name)
            else:
                _sweep(name, root)
    return stopped


def status(root: Path) -> dict[str, Running | None]:
    """Each service, or None where it does not run."""
    return {name: running(name, root) for name in KINDS}


def is_healthy(service: Running) -> bool:
    """Whether the service answers now. One that the environment names may be no HTTP server: it is taken as it is."""
    return service.pid is None or _answers(_health(service))


def client_environment(services: Mapping[str, Running], root: Path) -> dict[str, str]:
    """The variables by which clients in other processes find these services."""
    variables = {KINDS[name].variable: service.address for name, service in services.items()}
    # The database is MLflow's address, not its page: runs are written whether or not the page is up.
    if "mlflow" in services and services["mlflow"].pid is not None:
        del variables[KINDS["mlflow"].variable]
    if "prefect" in services and services["prefect"].pid is not None:
        variables["PREFECT_HOME"] = str(prefect_home(root))
    return variables


def _kind(name: str) -> Kind:
    from .section import nearest

    if name not in KINDS:
        raise GanpipeError(f"no service {name!r}; {nearest(name, KINDS)}")
    return KINDS[name]


def _own(name: str, root: Path) -> Running | None:
    """This checkout's own service, if it lives."""
    record = _record(root, name)
    alive = record is not None and record.pid is not None and processes.is_alive(record.pid, record.started)
    return record if alive else None


def _was_own(service: Running, root: Path) -> bool:
    """Whether what the environment names is a service of this checkout that has ended: a flow names the services in the
    environment of its stages, and a stage that is tried again needs a service that runs."""
    record = _record(root, service.name)
    return record is not None and record.address == service.address and _own(service.name, root) is None


def _log(name: str, root: Path) -> Path:
    return root / STATE / f"{name}.log"


class _PortTakenError(UnavailableError):
    """Another program listens where the service was to."""


def _start(name: str, root: Path, timeout_seconds: float) -> Running:
    kind = KINDS[name]
    try:
        return _launched(name, root, kind.launch(root, _last_port(name, root)), timeout_seconds)
    except _PortTakenError:  # it was free a moment ago: another checkout's service started at the same time
        return _launched(name, root, kind.launch(root, None), timeout_seconds)


def _launched(name: str, root: Path, launch: Launch, timeout_seconds: float) -> Running:
    log_path, port = _log(name, root), _port_of(launch.url)
    variables = {**os.environ, **environment.NO_TELEMETRY, **environment.loopback_past_proxies(os.environ)}
    variables |= {"PYTHONUNBUFFERED": "1", processes.SERVICE: name} | launch.environment
    # The service is for all runs, so it must not run the code of the workspace that starts it.
    variables["PYTHONPATH"] = environment.without_running_code(variables.get("PYTHONPATH", ""))
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            launch.command,
            cwd=root,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
        )
    started = processes.start_time(process.pid)
    unfinished = Running(name, launch.url, "", process.pid, started, launch.folder, str(root))
    # Recorded before it is healthy: if this process is killed while waiting, the next one finds what to stop.
    _write_record(root, unfinished)
    deadline = time.monotonic() + timeout_seconds
    address = None
    try:
        # Another program that took the port meanwhile, such as another checkout's server, would answer, too.
        while address is None or not (_answers(launch.health) and processes.listens(process.pid, port)):
            if _is_open(port) and not processes.listens(process.pid, port):
                raise _PortTakenError(f"{name}: another program took port {port} while {name} was starting")
            if process.poll() is not None:
                raise GanpipeError(f"{name} ended with exit code {process.returncode} while starting.{_tail(log_path)}")
            if time.monotonic() > deadline:
                raise UnavailableError(f"{name} did not answer within {timeout_seconds:.0f} s.{_tail(log_path)}")
            time.sleep(0.1)
            address = launch.address()
    except BaseException:
        _end(unfinished, root)
        raise
    service = replace(unfinished, address=address)
    _write_record(root, service)
    (root / STATE / f"{name}.port").write_text(str(port), encoding="utf-8")
    return service


def _port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None, url
    return port


def _end(service: Running, root: Path) -> None:
    if service.pid is not None:
        # Only the leader is told: Ray's head ends its own parts in their order.
        processes.end_tree(service.pid, KINDS[service.name].grace_seconds, leader_only=True)
    _sweep(service.name, root)


def _sweep(name: str, root: Path) -> None:
    """Remove what a dead service left: its record, its folder, and children that outlived it."""
    record = _record(root, name)
    if record is not None and record.pid is not None:
        processes.end(processes.orphans(record.pid, root))
    if record is not None and record.folder:
        processes.end(processes.having_argument(record.folder))
        shutil.rmtree(record.folder, ignore_errors=True)
    (root / STATE / f"{name}.json").unlink(missing_ok=True)


def _last_port(name: str, root: Path) -> int | None:
    """The port that the service had last: workers and open pages look for it there."""
    try:
        return int((root / STATE / f"{name}.port").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _record(root: Path, name: str) -> Running | None:
    try:
        record = Running(**json.loads((root / STATE / f"{name}.json").read_text(encoding="utf-8")))
        # A checkout that was copied has the records of the other's services, too. One that was moved keeps its own.
        others = record.root not in ("", str(root)) and record.pid is not None
        return None if others and processes.runs_in_other_folder(record.pid or 0, root) else record
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # Half a record, or one of another version: it tells nothing.
        return None


def _write_record(root: Path, service: Running) -> None:
    path = root / STATE / f"{service.name}.json"
    scratch = path.with_suffix(".json.new")
    scratch.write_text(json.dumps(asdict(service), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(scratch, path)


def _health(service: Running) -> str:
    return KINDS[service.name].health(service.url, service.address)


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2.0):
        return True
    return False


def _answers(url: str) -> bool:
    # Loopback never goes through a proxy, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError, urllib.error.URLError, ValueError), opener.open(url, timeout=2.0) as response:
        return bool(response.status == 200)
    return False


def _wait_healthy(url: str, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while not _answers(url):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _tail(log: Path, num_lines: int = 15) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-num_lines:]
    ending = "\n  ".join(line.rstrip() for line in lines)
    return f" The end of {log}:\n  {ending}" if ending else f" Its log ({log}) is empty."
