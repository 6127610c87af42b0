"""Training on several hosts, each with its own address; links, raylets and hosts come and go."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hosts import Host, Network, require_namespaces
from ray_parts import write_blobs
from reliability import fault
from training_parts import SMALL, largest_difference

from ganpipe.training.state import CheckpointStore

HERE = Path(__file__).parent
CODE = HERE.parents[1]
pytestmark = pytest.mark.slow
SETTINGS = {"num_images": 1_600, "batch_size": 16, "checkpoint_every": 400, "precision": "fp64"}
ELASTIC = {"num_workers": [1, 2], "cpus_per_worker": 1, "resize_seconds": 2}


@dataclass(frozen=True)
class Data:
    """What a training reads, and how."""

    shards: Path
    read: str
    settings: dict[str, Any]


@pytest.fixture(params=["the cache", "a stream in two lanes"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Data:
    if request.param == "the cache":
        return Data(request.getfixturevalue("shards"), "cache", {})
    shards = write_blobs(tmp_path / "many", 300, samples_per_shard=25)
    return Data(shards, "stream", {"window_shards": 2, "shard_lanes": 2})


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    require_namespaces()
    with Network(tmp_path / "hosts") as network:
        yield network


def start_cluster(network: Network, *names: str, num_cpus: int = 1) -> list[Host]:
    """Hosts of one Ray cluster; the first is its head."""
    hosts = [network.add(name) for name in names]
    for host in hosts:
        join(host, hosts[0], num_cpus)
    return hosts


def join(host: Host, head: Host, num_cpus: int = 1) -> None:
    host.pythonpath = str(HERE)  # the driver's own module; ganpipe itself is sent along by the product
    host.start_ray(num_cpus, None if host is head else head)
    logs = host.folder / "ray"
    host.network.wait_for(lambda: [*logs.glob("session_2*/logs/raylet.out")], about=f"the raylet of {host.name}")


def start_training(
    host: Host, head: Host, data: Data, folder: Path, hosts: int, gan: str = "gan",
    cluster: dict[str, Any] | None = None, settings: dict[str, Any] | None = None, pause: dict[str, Any] | None = None,
) -> subprocess.Popen[str]:  # fmt: skip
    """A driver on `host`; its output goes to <folder>.log."""
    given = {
        "shards": str(data.shards),
        "read": data.read,
        "folder": f"file://{folder}",
        "gan": gan,
        "widths": SMALL[gan],
        "settings": SETTINGS | data.settings | (settings or {}),
        "hosts": hosts,
        "cluster": cluster or {"num_workers": 2, "cpus_per_worker": 1},
        "pause": pause,
    }
    python_path = f"{CODE}:{HERE}"
    with folder.with_suffix(".log").open("w") as log:
        return host.start(
            [sys.executable, str(HERE / "driver.py"), json.dumps(given)],
            env=host.environment(RAY_ADDRESS=f"{head.address}:6379", PYTHONPATH=python_path),
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def finished(driver: subprocess.Popen[str], folder: Path, seconds: float = 240) -> dict[str, Any]:
    """The last checkpoint, once the driver has ended well."""
    try:
        code = driver.wait(seconds)
    except subprocess.TimeoutExpired:
        code = None
    assert code == 0, f"{code}\n{folder.with_suffix('.log').read_text()[-6000:]}"
    store = CheckpointStore(str(folder / "checkpoints"), 2)
    return store.load(store.list()[-1])


def test_two_hosts_with_a_worker_each_train_as_one_host_with_two(network: Network, data: Data, tmp_path: Path) -> None:
    settings = {"precision": "fp32", "num_images": 800}
    apart, together = tmp_path / "apart", tmp_path / "together"
    alpha, _ = start_cluster(network, "alpha", "beta")
    first = finished(start_training(alpha, alpha, data, apart, 2, "dcgan", settings=settings), apart)
    [gamma] = start_cluster(network, "gamma", num_cpus=2)
    second = finished(start_training(gamma, gamma, data, together, 1, "dcgan", settings=settings), together)
    assert "ip=10.77.0.2" in apart.with_suffix(".log").read_text(), "all workers were on one host"
    assert first["step"] == second["step"] == 50
    assert all(torch.equal(first["gan"][name], second["gan"][name]) for name in first["gan"])
    assert first["curves"]["rows"] == second["curves"]["rows"]


@pytest.fixture
def straight(data: Data, tmp_path: Path) -> dict[str, Any]:
    """The same training from the cache, without a cluster and without a fault."""
    from test_ray_train import make_job, train_here

    return train_here(make_job(data.shards, tmp_path / "straight", "gan", **SETTINGS, **data.settings))


def pause_of(tmp_path: Path, until: int) -> dict[str, Any]:
    (tmp_path / "pause").mkdir()
    return {"folder": str(tmp_path / "pause"), "at": 800, "until": until}


def workers_seen(tmp_path: Path) -> list[str]:
    return (tmp_path / "pause" / "workers").read_text().split()


@pytest.mark.fault
@pytest.mark.parametrize("how", ["its link is cut", "its raylet is killed"])
def test_a_host_that_is_lost(how: str, network: Network, data: Data, tmp_path: Path, straight: dict[str, Any]) -> None:
    alpha, beta = start_cluster(network, "alpha", "beta")
    work = tmp_path / "work"
    driver = start_training(alpha, alpha, data, work, 2, cluster=ELASTIC, pause=pause_of(tmp_path, 1))
    network.wait_for((tmp_path / "pause" / "paused").exists, about="the training's pause")
    assert set(workers_seen(tmp_path)) == {"2"}
    with fault(f"one of two hosts is lost: {how}") as trial:
        beta.cut() if how == "its link is cut" else beta.kill_raylet()
        trial.struck()
        network.wait_for(lambda: "1" in workers_seen(tmp_path), 300, "training on the host that is left")
        trial.recovered(lost="the images since the last checkpoint")
        result = finished(driver, work)
    assert workers_seen(tmp_path)[-1] == "1"
    assert "going on from 400 images" in work.with_suffix(".log").read_text()
    assert result["images_seen"] == 1_600
    assert largest_difference(result["gan"], straight["gan"]) < 1e-6


@pytest.mark.fault
def test_a_host_that_joins(network: Network, data: Data, tmp_path: Path, straight: dict[str, Any]) -> None:
    [alpha] = start_cluster(network, "alpha")
    work = tmp_path / "work"
    driver = start_training(alpha, alpha, data, work, 1, cluster=ELASTIC, pause=pause_of(tmp_path, 2))
    network.wait_for((tmp_path / "pause" / "paused").exists, about="the training's pause")
    assert set(workers_seen(tmp_path)) == {"1"}
    with fault("a second host joins") as trial:
        join(network.add("beta"), alpha)
        trial.struck()
        network.wait_for(lambda: "2" in workers_seen(tmp_path), 240, "training on both hosts")
        trial.recovered(lost="the images since the last checkpoint")
        result = finished(driver, work)
    assert workers_seen(tmp_path)[-1] == "2"
    assert result["images_seen"] == 1_600
    assert largest_difference(result["gan"], straight["gan"]) < 1e-6
