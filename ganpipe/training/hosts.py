"""The hosts of the Ray cluster beside this one, and what they see of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import fsspec

from ..data.shards.shard_set import ShardSet
from ..errors import UnavailableError
from .cluster import num_workers_on

ResultT = TypeVar("ResultT")
ANSWER_SECONDS = 300.0
"""Ray first brings this code to a host that has not run it yet."""


def with_room(cpus_per_worker: float, gpus_per_worker: float) -> dict[str, str]:
    """Address -> Ray's node id of each host on which such a worker has room."""
    import ray

    return {
        node["NodeManagerAddress"]: node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and num_workers_on(node["Resources"], cpus_per_worker, gpus_per_worker)
    }


def others(cpus_per_worker: float, gpus_per_worker: float) -> dict[str, str]:
    """As `with_room`, without the host of this process."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    here = {node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == own}
    found = with_room(cpus_per_worker, gpus_per_worker)
    return {address: node for address, node in found.items() if address not in here}


def not_seeing(shards: ShardSet, hosts: dict[str, str]) -> dict[str, str]:
    """Those of `hosts` that do not see the folder of `shards` with this dataset in it."""
    sees = _on_each(ShardSet.is_here, shards, hosts)
    return {address: hosts[address] for address, yes in sees.items() if not yes}


def not_reading(shards: ShardSet, hosts: dict[str, str]) -> dict[str, str]:
    """Address -> reason, for each of `hosts` that cannot read the shards by their URLs."""
    return {address: reason for address, reason in _on_each(_try_to_read, shards, hosts).items() if reason}


def _try_to_read(shards: ShardSet) -> str:
    """Why this host cannot read the first shard by its URL; empty where it can."""
    try:
        url = shards.url_of(shards.read_manifest().shards[0])
        filesystem, path = fsspec.core.url_to_fs(url, **shards.options)
        with filesystem.open(path, "rb") as file:
            file.read(1)
    except Exception as error:  # whatever the file system's library raises
        return f"{type(error).__name__}: {error}"
    return ""


def _on_each(function: Callable[[ShardSet], ResultT], shards: ShardSet, hosts: dict[str, str]) -> dict[str, ResultT]:
    """What `function` returns on each host, by the host's address.

    Raises:
        UnavailableError: a host does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task: Any = ray.remote(num_cpus=0, max_retries=0)(function)
    answers = {
        address: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(shards)
        for address, node in hosts.items()
    }
    found = {}
    for address, answer in answers.items():
        try:
            found[address] = ray.get(answer, timeout=ANSWER_SECONDS)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UnavailableError(
                f"host {address} of the Ray cluster does not run a task that it was given: {reason}"
            ) from error
    return found
