"""Where workers find each other: rank 0's store, which listens on its host's own address in the cluster, not on all.

torch's own rendezvous opens that store on every interface, and it asks nobody who they are: whoever reaches it can read
and write what the workers agree on. On one machine the address is 127.0.0.1.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch.distributed as dist
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend

_listening: list[socket.socket] = []
"""Rank 0's socket, from the moment its port is known until the store takes it over."""


def _listen(host: str) -> int:
    """Runs in rank 0: the port on which its store will answer."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    _listening[:] = [socket.create_server((host, 0), family=family)]
    return int(_listening[0].getsockname()[1])


def join(backend: str, host: str, port: int, rank: int, size: int, timeout_seconds: float) -> None:
    """Runs in each worker: the process group, over the store of rank 0."""
    timeout = timedelta(seconds=timeout_seconds)
    if rank == 0:
        taken = _listening.pop().detach()  # the store's own from here on
        store = dist.TCPStore(host, port, size, True, timeout, wait_for_workers=False, master_listen_fd=taken)
    else:
        store = dist.TCPStore(host, port, size, False, timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


class _Backend(_TorchBackend):
    """As Ray's own but for the store."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        backend = backend_config.backend or ("nccl" if gpus > 0 else "gloo")
        host = worker_group.execute_single(0, ray.util.get_node_ip_address)
        port = worker_group.execute_single(0, _listen, host)
        worker_group.execute(_set_torch_distributed_env_vars)
        size = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(rank, join, backend, host, port, rank, size, backend_config.timeout_s)
                for rank in range(size)
            ]
        )


@dataclass
class OwnAddress(TorchConfig):
    """Ray Train's settings for torch, with the store on the host's own address."""

    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend
