"""Which network interface workers talk to each other on: the one that has the host's address in the Ray cluster."""

from __future__ import annotations

import os

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def use_cluster_interface() -> None:
    """Name the interface of this host's Ray address to gloo and NCCL, where the host's environment does not.

    Left alone, gloo listens on whatever address the host's name resolves to: 127.0.1.1 on a Debian host, which no other
    host reaches. Runs in each worker process before anything else (`worker_process_setup_hook`).
    """
    import psutil
    import ray

    own = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == own for address in addresses):
            for variable in VARIABLES:
                os.environ.setdefault(variable, name)
            return
