"""Ray, where training runs: reached once a process, and asked before work starts whether it has what is needed."""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path

from ..errors import GanpipeError


def connect(address: str | None) -> None:
    """Join the Ray cluster at `address`; None starts one on this machine that ends with this process.

    Raises:
        GanpipeError: nobody answers there, or its Ray is of another version.
    """
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is not None and address.startswith(("http://", "https://")):
        raise GanpipeError(
            f"RAY_ADDRESS: got {address!r}, a cluster's job server; run this command on a host of the cluster "
            "with RAY_ADDRESS=<head's address>:6379"
        )
    try:
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            logging_level=logging.WARNING,
            log_to_driver=True,
            runtime_env=_runtime_env() if os.environ.get("RAY_ADDRESS") else None,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"at {address}" if address else "on this machine"
        reason = str(error).strip().splitlines()[0]
        raise GanpipeError(
            f"Ray {where} cannot be used: {reason}; check RAY_ADDRESS and that the cluster runs"
        ) from error


def _runtime_env() -> dict[str, list[str]]:
    """Sends this code to the cluster's hosts, whose image carries dependencies only."""
    return {"py_modules": [str(Path(__file__).parents[1])]}


def require(num_workers: int, cpus_per_worker: float, gpus_per_worker: float, wait_seconds: float, key: str) -> None:
    """Return once the cluster has room for such workers, counting what others use as room.

    Args:
        key: section of params.yaml that asks for them, for the message.

    Raises:
        GanpipeError: it still has not after `wait_seconds`.
    """
    import ray

    deadline = time.monotonic() + wait_seconds
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        places = [_places(node, cpus_per_worker, gpus_per_worker) for node in nodes]
        if sum(places) >= num_workers:
            return
        if time.monotonic() >= deadline:
            has = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise GanpipeError(
                f"{key}: asks for {num_workers} workers of {cpus_per_worker:g} CPUs and {gpus_per_worker:g} GPUs each; "
                f"the Ray cluster has room for {sum(places)} (its hosts have {has}); lower {key}.*, or add hosts"
            )
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))


def _places(node: dict[str, float], cpus: float, gpus: float) -> int:
    needs = [(node.get("CPU", 0.0), cpus), (node.get("GPU", 0.0), gpus)]
    return min((math.floor(has / need + 1e-9) for has, need in needs if need > 0), default=0)
