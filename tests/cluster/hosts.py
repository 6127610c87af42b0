"""Several hosts on this machine: each with its own network, address, name, processes, /dev/shm and /tmp/ray; root only.

A host is a set of Linux namespaces held by one process, which the kernel ends with all that runs in it when the test's
process ends, however that happens: nothing is left on this machine. Hosts are joined by a bridge in a namespace of its
own, so that nothing can be seen of them on this machine's network either. As on Debian, a host's own name resolves to
127.0.1.1: who listens there cannot be reached from another host.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from ganpipe import environment

HERE = Path(__file__).parent
NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")
TOKEN = "0123456789abcdef" * 4
ANSWERS = "import urllib.request, sys; urllib.request.urlopen(sys.argv[1], timeout=2)"
FAILURE_DETECTION = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "30",
}
"""What docs/operations-cluster.md tells to set: a lost host is noticed in 20 s, and notices it itself in 30 s."""


def require_namespaces() -> None:
    """Skip where this machine cannot make namespaces; fail there in CI, which has to be able to."""
    lacking = [name for name in ("ip", "unshare", "nsenter", "setpriv") if shutil.which(name) is None]
    reason = f"commands are missing: {', '.join(lacking)} (Debian: iproute2, util-linux)" if lacking else ""
    if not reason and os.geteuid() != 0:
        reason = "network namespaces need root"
    if not reason and subprocess.run(["unshare", *NAMESPACES, "--fork", "true"], check=False).returncode != 0:
        reason = "this kernel or container does not allow namespaces"
    if reason and os.environ.get("CI"):
        pytest.fail(f"the tests of several hosts cannot run: {reason}")
    if reason:
        pytest.skip(reason)


class Namespace:
    """A process that holds a set of namespaces, and what is run in them."""

    def __init__(self) -> None:
        # The kernel ends `unshare` with this process, and everything in the namespaces with `unshare`.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "--fork", "--mount-proc", "--kill-child"]
        # The first process of a PID namespace inherits its orphans; bash buries them.
        self._holder = subprocess.Popen([*command, "bash", "-c", "echo ready; sleep infinity & wait"], stdout=-1)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        self.pid = psutil.Process(self._holder.pid).children()[0].pid

    def command(self, arguments: Sequence[str], folder: Path | None = None) -> list[str]:
        """What runs `arguments` in here."""
        where = [] if folder is None else [f"--wdns={folder}"]
        return ["nsenter", f"--target={self.pid}", *NAMESPACES, *where, "--", *arguments]

    def __call__(self, *arguments: str) -> str:
        """Run a command in here; what it prints."""
        done = subprocess.run(self.command(arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def processes(self) -> list[psutil.Process]:
        """All that run in here but the holder."""
        mine = os.stat(f"/proc/{self.pid}/ns/pid").st_ino
        found = []
        for process in psutil.process_iter():
            try:
                if os.stat(f"/proc/{process.pid}/ns/pid").st_ino == mine and process.pid != self.pid:
                    found.append(process)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # gone, or none of root's in this container
        return found

    def close(self) -> None:
        """End all that runs in here, and return when it is gone."""
        inside = self.processes()
        self._holder.kill()
        self._holder.wait()
        psutil.wait_procs(inside, timeout=30)
        assert self._holder.stdout is not None
        self._holder.stdout.close()


class Host:
    """A host of the network."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.network, self.name, self.address = network, name, f"10.77.0.{number}"
        self.folder = network.folder / name
        self.port = f"to-{name}"
        self.namespace = Namespace()
        self._daemons: list[subprocess.Popen[bytes]] = []
        (self.folder / "ray").mkdir(parents=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        run = self.namespace
        run("hostname", name)
        run("mount", "-t", "tmpfs", "-o", "size=2g", "shm", "/dev/shm")
        run("mount", "--bind", str(self.folder / "ray"), "/tmp/ray")
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        run("mount", "--bind", str(self.folder / "hosts"), "/etc/hosts")
        switch = network.switch
        link = ["link", "add", "eth0", "netns", str(run.pid), "type", "veth", "peer", "name", self.port]
        subprocess.run(["ip", *link, "netns", str(switch.pid)], check=True)
        switch("ip", "link", "set", self.port, "master", "bridge", "up")
        run("ip", "link", "set", "lo", "up")
        run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        run("ip", "link", "set", "eth0", "up")
        run("ip", "route", "add", "default", "via", "10.77.0.254")

    def hide(self, path: Path) -> None:
        """Put an empty folder over `path`: on this host it is not there."""
        self.namespace("mount", "-t", "tmpfs", "none", str(path))

    def environment(self, **variables: str) -> dict[str, str]:
        """What a person on this host has set."""
        foreign = ("RAY_", "MLFLOW_", "PREFECT_", "GLOO_", "NCCL_")
        own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return own | environment.NO_TELEMETRY | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "GANPIPE_CACHE": str(self.folder / "cache"),
            **variables,
        }  # fmt: skip

    def start(self, command: Sequence[str], folder: Path | None = None, **options: Any) -> subprocess.Popen[Any]:
        """Start a command here; `options` are Popen's, `env` by default `environment()`."""
        options.setdefault("env", self.environment())
        return subprocess.Popen(self.namespace.command(command, folder), **options)

    def run(
        self, command: Sequence[str], folder: Path | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end; its output is captured as text."""
        options = {"env": self.environment(), "timeout": 300, "check": False, **options}
        return subprocess.run(self.namespace.command(command, folder), capture_output=True, text=True, **options)

    def start_ray(self, num_cpus: int, head: Host | None = None, dashboard: bool = False) -> None:
        """Start a raylet that joins `head`; without one, a new cluster's head."""
        place = [f"--address={head.address}:6379"] if head else ["--head", "--port=6379"]
        if head is None:
            # `--dashboard-host` is where people and the job API reach it.
            place += [f"--include-dashboard={str(dashboard).lower()}", "--dashboard-host=0.0.0.0"]
        command = ["ray", "start", "--block", *place, f"--node-ip-address={self.address}", f"--num-cpus={num_cpus}"]
        # Arrow's pool of half the memory is not needed here, and there are several on one machine.
        command += ["--object-store-memory=200000000", "--disable-usage-stats", "--log-color=false"]
        log = open(self.folder / "ray.log", "ab")  # noqa: SIM115
        self._daemons.append(
            self.start(
                command,
                env=self.environment(PYTHONPATH=self.pythonpath, **FAILURE_DETECTION),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )
        log.close()

    pythonpath = ""
    """Modules that Ray's workers can import beside the code that is sent to them: those of the tests."""

    def ray_processes(self, part: str) -> list[psutil.Process]:
        """This host's processes with `part` in their command line."""
        found = []
        for process in self.namespace.processes():
            try:
                if any(part in argument for argument in process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def kill_raylet(self) -> None:
        """SIGKILL to the raylet; its workers end themselves when they notice."""
        raylets = [p for p in self.ray_processes("raylet/raylet") if p.name() == "raylet"]
        assert len(raylets) == 1, raylets
        raylets[0].send_signal(signal.SIGKILL)

    def cut(self) -> None:
        """Pull the cable out of the switch."""
        self.network.switch("ip", "link", "set", self.port, "down")

    def restore(self) -> None:
        self.network.switch("ip", "link", "set", self.port, "up")

    def close(self) -> None:
        self.namespace.close()
        for daemon in self._daemons:
            daemon.wait()


class Network:
    """A switch, and hosts on it; a context that takes all of them down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: list[Host] = []

    def __enter__(self) -> Network:
        self.switch = Namespace()
        self.switch("ip", "link", "add", "bridge", "type", "bridge")
        self.switch("ip", "link", "set", "bridge", "up")
        return self

    def __exit__(self, *failure: object) -> None:
        for host in self.hosts:
            host.close()
        self.switch.close()

    def add(self, name: str) -> Host:
        """One more host."""
        self.hosts.append(Host(self, name, len(self.hosts) + 1))
        return self.hosts[-1]

    def wait_for(self, what: Callable[[], object], seconds: float = 120, about: str = "") -> None:
        """Return when `what()` is true.

        Raises:
            AssertionError: it never was.
        """
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"{about or what}: not within {seconds:g} s"
            time.sleep(0.1)


def start_mlflow(host: Host, folder: Path) -> subprocess.Popen[bytes]:
    """An MLflow server that all hosts reach."""
    mlflow = shutil.which("mlflow", path=str(Path(sys.executable).parent))
    assert mlflow is not None
    command = [mlflow, "server", "--host", "0.0.0.0", "--port", "5000", "--workers", "1", "--allowed-hosts", "*"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/mlartifacts",
    ]
    variables = host.environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    with (folder / "mlflow.log").open("w") as log:
        server = host.start(command, env=variables, stdout=log, stderr=subprocess.STDOUT)
    asked = [sys.executable, "-c", ANSWERS, f"http://{host.address}:5000/health"]
    host.network.wait_for(lambda: host.run(asked).returncode == 0, 120, "MLflow")
    return server
