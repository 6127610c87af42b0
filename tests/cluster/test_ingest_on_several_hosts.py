"""Ingest whose images are decoded on two hosts, of which one is lost meanwhile, makes the shards of a single host."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Network, require_namespaces
from PIL import Image, ImageDraw
from reliability import fault
from test_several_hosts import CODE, start_cluster

from ganpipe.data import sources
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.settings import DataSettings

pytestmark = pytest.mark.slow
_SETTINGS = {"source": "folder", "image_size": 16, "channels": 3, "samples_per_shard": 100}
_NUM_IMAGES = 896
"""Seven tasks of some seconds each."""
_DRIVER = """
import functools, json, os, sys
from pathlib import Path
import ray
from ganpipe.data import sources
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.settings import DataSettings
from ganpipe.training import cluster
from ganpipe.training.ray_tasks import map_on_cluster

root, settings = Path(sys.argv[1]), json.loads(sys.argv[2])

def on_a_host(function, task):
    return ray.util.get_node_ip_address(), function(task)

def noting_hosts(function, tasks):
    with (root / "hosts").open("a", buffering=1) as file:
        for host, result in map_on_cluster(functools.partial(on_a_host, function), tasks):
            file.write(f"{host}\\n")
            yield result

cluster.connect(os.environ["RAY_ADDRESS"])
folder = sources.load("folder")
source = folder(folder.Settings.model_validate({"path": str(root / "images")}))
write_shards(DataSettings(**settings), source, root / "two-hosts", map_tasks=noting_hosts)
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    require_namespaces()
    with Network(tmp_path / "network") as network:
        yield network


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Large images, which take a while to decode, in two classes."""
    for number in range(_NUM_IMAGES):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (1200, 1200), (number % 256, number // 256, 90))
        ImageDraw.Draw(image).ellipse((number, 100, number + 300, 400), fill="white")
        image.save(path, compress_level=1)
    return tmp_path / "images"


@pytest.mark.fault
def test_a_host_that_is_lost_meanwhile(network: Network, images: Path, tmp_path: Path) -> None:
    alpha, beta = start_cluster(network, "alpha", "beta")
    seen = tmp_path / "hosts"
    log = tmp_path / "log"
    with log.open("w") as file:
        driver = alpha.start(
            [sys.executable, "-c", _DRIVER, str(tmp_path), json.dumps(_SETTINGS)],
            env=alpha.environment(RAY_ADDRESS=f"{alpha.address}:6379", PYTHONPATH=str(CODE)),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    network.wait_for(lambda: seen.exists() and beta.address in seen.read_text(), about="a task on the second host")
    with fault("one of two hosts is lost while ingest decodes on both") as trial:
        beta.kill_raylet()
        trial.struck()
        assert driver.wait(240) == 0, log.read_text()[-6000:]
        trial.recovered(lost="the tasks that ran there")
    hosts = seen.read_text().split()
    assert set(hosts) == {alpha.address, beta.address}
    assert len(hosts) == _NUM_IMAGES / 128
    folder = sources.load("folder")
    source = folder(folder.Settings.model_validate({"path": str(images)}))
    write_shards(DataSettings.model_validate(_SETTINGS), source, tmp_path / "one-host")
    made, expected = (sorted((tmp_path / name).iterdir()) for name in ("two-hosts", "one-host"))
    assert [path.name for path in made] == [path.name for path in expected]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(made, expected, strict=True))
