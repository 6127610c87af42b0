"""Where workers find each other: rank 0's store, which listens on its host's own address in the cluster, not on all.

torch's own rendezvous opens that store on every interface and without authentication: whoever reaches it can read and
write what the workers agree on. On one machine the address is 127.0.0.1.

The actor that controls the workers imports this module before it starts them. Torch takes a second to import, so only
the functions that run in the workers import it.
"""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

_SHUTDOWN_SECONDS = 30.0
"""Time for the process group to end; a worker that waits for a dead one does not answer."""
_listening: list[socket.socket] = []
"""Rank 0's socket, from the moment its port is known until the store takes it over."""


def _listen(host: str) -> int:
    """Runs in rank 0: the port on which its store will answer."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    _listening[:] = [socket.create_server((host, 0), family=family)]
    return int(_listening[0].getsockname()[1])


def join(backend: str, host: str, port: int, rank: int, size: int, timeout_seconds: float) -> None:
    """Runs in each worker: joins the process group by the store of rank 0."""
    import torch.distributed as dist

    timeout = timedelta(seconds=timeout_seconds)
    if rank == 0:
        taken = _listening.pop().detach()  # from here on it belongs to the store
        store = dist.TCPStore(host, port, size, True, timeout, wait_for_workers=False, master_listen_fd=taken)
    else:
        store = dist.TCPStore(host, port, size, False, timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def _set_environment() -> None:
    """Runs in each worker: sets torch's environment variables, among them the rank."""
    from ray.train.torch.config import _set_torch_distributed_env_vars

    _set_torch_distributed_env_vars()


def _end_process_group(size: int) -> None:
    """Runs in each worker at the end."""
    from ray.train.torch.config import _shutdown_torch

    _shutdown_torch(destroy_process_group=size > 1)


class _Backend(Backend):
    """As Ray's own backend for torch, except for the store."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        host = worker_group.execute_single(0, ray.util.get_node_ip_address)
        port = worker_group.execute_single(0, _listen, host)
        worker_group.execute(_set_environment)
        backend, timeout, size = backend_config.backend, backend_config.timeout_seconds, len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(rank, join, backend, host, port, rank, size, timeout)
                for rank in range(size)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        try:
            ray.get(worker_group.execute_async(_end_process_group, len(worker_group)), timeout=_SHUTDOWN_SECONDS)
        except ray.exceptions.GetTimeoutError:
            logging.getLogger(__name__).warning("the workers' process group did not end in %g s", _SHUTDOWN_SECONDS)


@dataclass
class HostAddressConfig(BackendConfig):
    """Takes the place of Ray's TorchConfig; the store listens on its host's address in the cluster.

    Attributes:
        backend: of torch.distributed; the trainer fills in what suits its workers.
        timeout_seconds: of a collective operation.
    """

    backend: str | None = None
    timeout_seconds: float = 1800.0

    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend

    @property
    def train_func_context(self) -> Any:
        from ray.train.torch.config import TorchConfigContextManager

        return TorchConfigContextManager
