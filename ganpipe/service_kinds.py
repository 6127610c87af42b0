"""What each background service of a checkout is started with, and how it is known to work."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import environment
from .cpus import usable_cpus
from .errors import GanpipeError

LONGEST_RAY_FOLDER = 40
"""Characters. Ray appends 66 more for its sockets, and a Unix socket's path has at most 107."""

_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)


@dataclass(frozen=True)
class Launch:
    """How to start a service, and what to wait for."""

    command: list[str]
    environment: dict[str, str]
    url: str
    health: str
    """A URL that answers 200 once the service works."""
    address: Callable[[], str | None]
    """() -> the value of the service's variable; None while it is not known yet."""
    folder: str = ""


@dataclass(frozen=True)
class Kind:
    """One sort of service."""

    variable: str
    """The environment variable that names it to its clients."""
    launch: Callable[[Path, int | None], Launch]
    """(checkout, the port that the service had last) -> how to start it."""
    health: Callable[[str, str], str]
    """(URL of its page, address) -> a URL that answers 200 while it works."""
    grace_seconds: float = 10.0
    """From SIGTERM to SIGKILL."""
    note: str = ""
    """What a person needs to open the page."""


def prefect_home(root: Path) -> Path:
    """Where this checkout's Prefect keeps its database and settings, apart from the user's own profile."""
    return root / ".ganpipe" / "prefect"


def _launch_prefect(root: Path, last_port: int | None) -> Launch:
    port = free_port(last_port or 4200)
    home = prefect_home(root)
    home.mkdir(parents=True, exist_ok=True)
    api = f"http://127.0.0.1:{port}/api"
    return Launch(
        command=[*_python_module("prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        # The page asks the API at this address; without it, an address from the user's own profile would be used.
        environment={"PREFECT_HOME": str(home), "PREFECT_API_URL": api, "PREFECT_UI_API_URL": api},
        url=f"http://127.0.0.1:{port}",
        health=f"{api}/health",
        address=lambda: api,
    )


def _launch_ray(root: Path, last_port: int | None) -> Launch:
    _ensure_token()
    port = free_port(8265)
    folder = _short_folder()
    cluster = Path(folder) / "ray_current_cluster"
    command = _python_module("ray.scripts.scripts", _plain_python(folder))
    command += ["start", "--head", "--block", "--port=0", "--node-ip-address=127.0.0.1"]
    command += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    # Ray's fixed ports and port ranges would clash with another checkout's: take free ones for all.
    command += [f"--ray-client-server-port={free_port()}", "--dashboard-agent-listen-port=0"]
    command += ["--min-worker-port=0", "--max-worker-port=0", f"--num-cpus={usable_cpus()}"]
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


def _ensure_token() -> None:
    """The token that head and clients share, made where there is none yet; only its user can read it.

    Raises:
        GanpipeError: it cannot be kept.
    """
    variables = dict(os.environ)
    path = Path(variables.get("RAY_AUTH_TOKEN_PATH", ""))
    if path.parts[-2:] == environment.RAY_TOKEN.parts:  # Ray looks for a token there, and makes one below HOME only
        del variables["RAY_AUTH_TOKEN_PATH"]
        variables["HOME"] = str(path.parents[1])
    command = [*_python_module("ray.scripts.scripts"), "get-auth-token", "--generate"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, umask=0o077, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise GanpipeError(f"Ray cannot keep its token: {reason}; set HOME to a folder that you may write to")


def _launch_mlflow(root: Path, last_port: int | None) -> Launch:
    port = free_port(last_port or 5000)
    url = f"http://127.0.0.1:{port}"
    command = [*_python_module("mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
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
    "prefect": Kind("PREFECT_API_URL", _launch_prefect, lambda url, address: f"{address}/health"),
    "ray": Kind(
        "RAY_ADDRESS",
        _launch_ray,
        lambda url, address: f"{url}/api/gcs_healthz",
        grace_seconds=20.0,
        note="  (asks for a token: `ray get-auth-token` prints it)",
    ),
    "mlflow": Kind("MLFLOW_TRACKING_URI", _launch_mlflow, lambda url, address: f"{url}/health"),
}


def _python_module(name: str, python: str = sys.executable) -> list[str]:
    """`python -m name`, which works where the first line of a console script cannot name the interpreter's path; -P,
    because a file of the working directory must not stand for a module."""
    return [python, "-P", "-m", name]


def _plain_python(folder: str) -> str:
    """This interpreter at a path of plain characters, by a link in `folder` where its own path has others: Ray puts
    it into command lines that are taken apart at spaces, quotes and backslashes."""
    if _PLAIN.fullmatch(sys.executable):
        return sys.executable
    link = Path(folder) / "environment"
    link.symlink_to(sys.prefix)
    return str(link / Path(sys.executable).relative_to(sys.prefix))


def free_port(preferred: int | None = None) -> int:
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


def _short_folder() -> str:
    """A new private folder whose path leaves room for Ray's socket names."""
    for parent in (tempfile.gettempdir(), os.path.join(os.sep, "tmp")):
        short = len(parent) + len("/gp-") + 8 <= LONGEST_RAY_FOLDER
        if short and _PLAIN.fullmatch(parent) and os.access(parent, os.W_OK):
            return tempfile.mkdtemp(prefix="gp-", dir=parent)
    raise GanpipeError(
        f"Ray needs a temporary folder with a short path (at most {LONGEST_RAY_FOLDER} characters, without "
        "spaces and the like): set TMPDIR"
    )
