"""The hosts that the tests of several hosts stand on: apart, joined by a link that can be cut, gone without a trace."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hosts import Host, Network, require_namespaces

SERVE = "import socket; here = socket.create_server(('', 5000)); print('ready', flush=True); input()"
REACH = "import socket; socket.create_connection(('{}', 5000), timeout=1)"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    require_namespaces()
    with Network(tmp_path / "hosts") as network:
        yield network


def reaches(here: Host, there: Host) -> bool:
    return here.run([sys.executable, "-c", REACH.format(there.address)]).returncode == 0


def test_a_link_can_be_cut_and_restored(network: Network) -> None:
    alpha, beta = network.add("alpha"), network.add("beta")
    server = beta.start([sys.executable, "-c", SERVE], stdin=-1, stdout=-1)
    assert server.stdout.readline() == b"ready\n"
    assert reaches(alpha, beta)
    beta.cut()
    assert not reaches(alpha, beta)
    beta.restore()
    network.wait_for(lambda: reaches(alpha, beta), 20, "the restored link")
    server.communicate(b"\n")


def test_each_host_has_its_own_name_files_and_processes(network: Network, tmp_path: Path) -> None:
    alpha, beta = network.add("alpha"), network.add("beta")
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "params.yaml").touch()
    beta.hide(tmp_path / "checkout")
    assert alpha.run(["ls", str(tmp_path / "checkout")]).stdout == "params.yaml\n"
    assert beta.run(["ls", str(tmp_path / "checkout")]).stdout == ""
    assert [host.run(["hostname"]).stdout for host in (alpha, beta)] == ["alpha\n", "beta\n"]
    resolved = [sys.executable, "-c", "import socket; print(socket.gethostbyname(socket.gethostname()))"]
    assert beta.run(resolved).stdout == "127.0.1.1\n", "as on Debian"
    mine = beta.start(["sleep", "1000"])
    network.wait_for(lambda: len(beta.ray_processes("1000")) == 1, 20, "the process")
    assert alpha.ray_processes("1000") == []
    assert not [p for p in alpha.namespace.processes() if p.pid in {q.pid for q in beta.namespace.processes()}]
    mine.kill()
    mine.wait()


def test_nothing_of_them_is_left(tmp_path: Path) -> None:
    require_namespaces()
    links = sorted(os.listdir("/sys/class/net"))
    with Network(tmp_path / "hosts") as network:
        host = network.add("alpha")
        started = host.start([sys.executable, "-c", SERVE], stdin=-1, stdout=-1)
        assert started.stdout.readline() == b"ready\n"
        inside = [process.pid for process in host.namespace.processes()]
        assert inside
        assert sorted(os.listdir("/sys/class/net")) == links, "the hosts' links are not this machine's"
    started.wait()
    assert not [pid for pid in inside if psutil.pid_exists(pid)]
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(tmp_path) in line]
