"""The connection to Ray, where training runs: made once per process, and checked for room before work starts."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .. import environment, services
from ..errors import UnavailableError
from . import interfaces

_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Workers' lines are progress for a person: each is shown, once, and without colour codes around its origin.
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    # A report waits for the controller's next look at the workers, every 2 s by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # How long a group waits for places on hosts that have just been lost, before it is formed on those that are left.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    # Ray tries 20 times to join, 46 s each, before it gives up: one try has to be enough.
    "RAY_gcs_server_port_wait_time_s": "1",
}
_ON_ONE_HOST = {
    # No cloud announces the end of this host, and asking costs an actor at every start.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
_PROBE_SECONDS = 10.0


def connect(address: str) -> None:
    """Join the Ray cluster at `address` (host:port), once per process.

    Raises:
        UnavailableError: nobody answers there, or its Ray is of another version.
        GanpipeError: it was this checkout's own Ray, which ended soon after it was started.
    """
    if address == "auto":
        found = services.rays_of_this_host()
        raise UnavailableError(
            f"RAY_ADDRESS: auto stands for the Ray of this host, where {', '.join(found) or 'none'} "
            f"{'run' if found else 'runs'}; set it to host:port, or unset it: a stage then starts its own Ray"
        )
    os.environ.update(environment.defaults({**os.environ, "RAY_ADDRESS": address}))
    for name, value in (_ENVIRONMENT | (_ON_ONE_HOST if environment.is_loopback(address) else {})).items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return
    try:
        _probe(address)
        ray.init(address, logging_level=logging.WARNING, log_to_driver=True, runtime_env=_runtime_env(address))
    except (OSError, RuntimeError, ValueError, ray.exceptions.RaySystemError) as error:
        reason = str(error).strip().splitlines()[0]
        raise services.crash_error("ray", environment.home(), address) or UnavailableError(
            f"Ray at {address} cannot be used: {reason}; check RAY_ADDRESS and that the cluster runs"
        ) from error


def _runtime_env(address: str) -> dict[str, Any]:
    """Ray's runtime environment, with which workers run the code that this process runs."""
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # as a job, which has brought the code already
    if environment.is_loopback(address):
        path = None if submitted else os.environ.get("PYTHONPATH")  # a workspace's
        return {"env_vars": {"PYTHONPATH": path}} if path else {}
    interface = {"worker_process_setup_hook": f"{interfaces.__name__}.use_cluster_interface"}
    # Another host's image carries dependencies only: this code is sent along.
    return interface if submitted else interface | {"py_modules": [str(Path(__file__).parents[1])]}


def _probe(address: str) -> None:
    """Raise OSError where nobody listens at `address` (`host:port`, `ray://host:port`); Ray itself notices it late."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=_PROBE_SECONDS).close()


def require(num_workers: int, cpus_per_worker: float, gpus_per_worker: float, wait_seconds: float, key: str) -> None:
    """Return once the cluster has room for such workers, no matter whether other work uses it now.

    Args:
        key: section of params.yaml that asks for them, for the message.

    Raises:
        GanpipeError: it still has not after `wait_seconds`.
    """
    import ray

    deadline = time.monotonic() + wait_seconds
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(num_workers_on(node, cpus_per_worker, gpus_per_worker) for node in nodes)
        if room >= num_workers:
            return
        if time.monotonic() >= deadline:
            has = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise UnavailableError(
                f"{key}: asks for {num_workers} workers of {cpus_per_worker:g} CPUs and {gpus_per_worker:g} GPUs each; "
                f"the Ray cluster has room for {room} (its hosts have {has}); lower {key}.*, or add hosts"
            )
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))


def num_workers_on(node: dict[str, float], cpus: float, gpus: float) -> int:
    """How many workers of `cpus` and `gpus` a host with the resources `node` has room for, were it idle."""
    needs = [(node.get("CPU", 0.0), cpus), (node.get("GPU", 0.0), gpus)]
    return min((math.floor(has / need + 1e-9) for has, need in needs if need > 0), default=0)
