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
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from . import environment, processes
from .errors import GanpipeError, UnavailableError
from .redaction import without_user_info

STATE = Path(".ganpipe") / "services"
START_TIMEOUT_SECONDS = 120.0
LONGEST_RAY_FOLDER = 40
"""Characters. Ray puts 66 more behind it for its sockets, and a Unix socket's path ends at 107."""


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


@dataclass(frozen=True)
class Launch:
    """How to start a service, and what to wait for."""

    command: list[str]
    environment: dict[str, str]
    url: str
    health: str
    """A URL that answers 200 once the service works."""
    address: Callable[[], str | None]
    """The value of the service's variable; None while it is not known yet."""
    folder: str = ""


@dataclass(frozen=True)
class Kind:
    """One sort of service."""

    variable: str
    """The environment variable that names it to its clients."""
    launch: Callable[[Path], Launch]
    health: Callable[[Running], str]
    grace_seconds: float = 10.0
    """From SIGTERM to SIGKILL."""
    note: str = ""
    """What a person needs to open the page."""


def _script(name: str) -> str:
    """The console script `name` of the environment that runs this."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise GanpipeError(f"no command {name!r} beside {sys.executable}: install the project (`make .venv`)")
    return found


def _port(preferred: int | None = None) -> int:
    """`preferred` where it is free on 127.0.0.1, else any free one."""
    for port in ([preferred] if preferred else []) + [0]:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise GanpipeError("no free port on 127.0.0.1")


def _launch_prefect(root: Path) -> Launch:
    port = _port(_last_port("prefect", root) or 4200)
    home = prefect_home(root)
    home.mkdir(parents=True, exist_ok=True)
    api = f"http://127.0.0.1:{port}/api"
    return Launch(
        command=[_script("prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        # The page asks the API at this address; without it, an address from the user's own profile would be used.
        environment={"PREFECT_HOME": str(home), "PREFECT_API_URL": api, "PREFECT_UI_API_URL": api},
        url=f"http://127.0.0.1:{port}",
        health=f"{api}/health",
        address=lambda: api,
    )


def _launch_ray(root: Path) -> Launch:
    # Makes the token that head and clients share, where there is none yet.
    subprocess.run([_script("ray"), "get-auth-token", "--generate"], stdout=subprocess.DEVNULL, check=True)
    port = _port(8265)
    folder = _short_folder()
    cluster = Path(folder) / "ray_current_cluster"
    command = [_script("ray"), "start", "--head", "--block", "--port=0", "--node-ip-address=127.0.0.1"]
    command += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    # Ray's fixed and ranged ports would clash with another checkout's: all of them free ones.
    command += [f"--ray-client-server-port={_port()}", "--dashboard-agent-listen-port=0"]
    command += ["--min-worker-port=0", "--max-worker-port=0", f"--num-cpus={os.cpu_count() or 1}"]
    command += [f"--temp-dir={folder}", "--disable-usage-stats", "--log-style=record", "--log-color=false"]
    url = f"http://127.0.0.1:{port}"
    variables = {
        # Told to stop, it would wait up to 30 s for requests to Ray Serve, and for an actor that every training leaves.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Ray's own actors look for their cluster, and give up where another checkout's runs on this machine.
        "RAY_API_SERVER_ADDRESS": url,
    }
    return Launch(
        command=command,
        environment=environment.LOOPBACK_RAY | variables,
        url=url,
        health=f"{url}/api/gcs_healthz",
        address=lambda: cluster.read_text().strip() if cluster.exists() else None,
        folder=folder,
    )


def _launch_mlflow(root: Path) -> Launch:
    port = _port(_last_port("mlflow", root) or 5000)
    url = f"http://127.0.0.1:{port}"
    command = [_script("mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # Runs are written straight to the database, with or without this server: it must not hand out artifact
    # addresses (mlflow-artifacts:/…) that only answer while it is up.
    command += ["--backend-store-uri", "sqlite:///mlflow.db", "--default-artifact-root", "mlruns"]
    command += ["--no-serve-artifacts"]
    return Launch(
        command=command,
        # Its job runners are seven more processes, for features that nothing here uses.
        environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        url=url,
        health=f"{url}/health",
        address=lambda: url,
    )


KINDS: dict[str, Kind] = {
    "prefect": Kind("PREFECT_API_URL", _launch_prefect, lambda service: f"{service.address}/health"),
    "ray": Kind(
        "RAY_ADDRESS",
        _launch_ray,
        lambda service: f"{service.url}/api/gcs_healthz",
        grace_seconds=20.0,
        note="  (asks for a token: `ray get-auth-token` prints it)",
    ),
    "mlflow": Kind("MLFLOW_TRACKING_URI", _launch_mlflow, lambda service: f"{service.url}/health"),
}


def prefect_home(root: Path) -> Path:
    """Where this checkout's Prefect keeps its database and settings, apart from the user's own profile."""
    return root / ".ganpipe" / "prefect"


def named(name: str, variables: Mapping[str, str] | None = None) -> Running | None:
    """The service that the environment names, if it names one."""
    address = (os.environ if variables is None else variables).get(_kind(name).variable)
    if not address:
        return None
    page = address.removesuffix("/").removesuffix("/api") if name == "prefect" else address
    # The page is shown; the address may hold a password, which clients need.
    return Running(name=name, url=without_user_info(page), address=address)


def running(name: str, root: Path) -> Running | None:
    """The service as named in the environment, or as this checkout's own one if it lives; no health check.

    One that is both, since a flow tells its stages where the services are, is this checkout's own.
    """
    record, service = _record(root, name), named(name)
    alive = record is not None and record.pid is not None and processes.is_alive(record.pid, record.started)
    own = record if alive else None
    return own if service is None or (own is not None and own.address == service.address) else service


def ray_address(root: Path) -> str | None:
    """`host:port` of the Ray cluster to use: `RAY_ADDRESS`, else this checkout's head if it runs, else None."""
    service = running("ray", root)
    return (service.address or None) if service else None


def ensure(name: str, root: Path, timeout_seconds: float = START_TIMEOUT_SECONDS) -> Running:
    """The service, started if it does not run yet, and healthy.

    Raises:
        GanpipeError: it died (with the end of its log).
        UnavailableError: it did not answer in time, as on a machine with too much to do.
    """
    from filelock import FileLock, Timeout

    if service := named(name):
        return service
    folder = root / STATE
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Waiting for another caller that starts the same service takes as long as starting it.
        with FileLock(folder / f"{name}.lock", timeout=timeout_seconds + 30):
            service = running(name, root)
            if service is not None:
                # A folder in /tmp may have been swept away under a Ray that still answers and cannot be joined.
                intact = not service.folder or (Path(service.folder) / "session_latest").exists()
                if intact and service.address and _wait_healthy(KINDS[name].health(service), timeout_seconds=10.0):
                    return service
                _end(service, root)
            else:
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
    return service.pid is None or _answers(KINDS[service.name].health(service))


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


def _start(name: str, root: Path, timeout_seconds: float) -> Running:
    launch = KINDS[name].launch(root)
    log_path = root / STATE / f"{name}.log"
    variables = {**os.environ, **environment.NO_TELEMETRY, "PYTHONUNBUFFERED": "1", processes.SERVICE: name}
    variables |= launch.environment
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
    unfinished = Running(name, launch.url, "", process.pid, started, launch.folder)
    # Recorded before it is healthy: if this process is killed while waiting, the next one finds what to stop.
    _write_record(root, unfinished)
    deadline = time.monotonic() + timeout_seconds
    address = None
    try:
        # Whoever else took the port in the meantime, another checkout's server for one, would answer as well.
        while address is None or not (_answers(launch.health) and processes.listens(process.pid, _port_of(launch.url))):
            if process.poll() is not None:
                raise GanpipeError(f"{name} ended with exit code {process.returncode} while starting.{_tail(log_path)}")
            if time.monotonic() > deadline:
                raise UnavailableError(f"{name} did not answer within {timeout_seconds:.0f} s.{_tail(log_path)}")
            time.sleep(0.1)
            address = launch.address()
    except BaseException:
        _end(unfinished, root)
        raise
    service = Running(name, launch.url, address, process.pid, started, launch.folder)
    _write_record(root, service)
    (root / STATE / f"{name}.port").write_text(str(_port_of(launch.url)), encoding="utf-8")
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
    """Where the service was last: workers and open pages look for it there."""
    try:
        return int((root / STATE / f"{name}.port").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _record(root: Path, name: str) -> Running | None:
    try:
        return Running(**json.loads((root / STATE / f"{name}.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # Half a record, or another version's: there is nothing in it to go by.
        return None


def _write_record(root: Path, service: Running) -> None:
    path = root / STATE / f"{service.name}.json"
    scratch = path.with_suffix(".json.new")
    scratch.write_text(json.dumps(asdict(service), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(scratch, path)


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


def _short_folder() -> str:
    """A new private folder whose path leaves room for Ray's socket names."""
    for parent in (tempfile.gettempdir(), os.path.join(os.sep, "tmp")):
        if len(parent) + len("/gp-") + 8 <= LONGEST_RAY_FOLDER and os.access(parent, os.W_OK):
            return tempfile.mkdtemp(prefix="gp-", dir=parent)
    raise GanpipeError(
        f"Ray needs a temporary folder with a short path (at most {LONGEST_RAY_FOLDER} characters): set TMPDIR"
    )
