"""Hosts without a shared disk: shards come from the DVC remote by content; a place of one host alone is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Host, Network, require_namespaces, start_mlflow
from projects import Project, make_project

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A checkout with shards, whose search and training want a worker on each of two hosts."""
    project = make_project(tmp_path / "checkout")
    for key, value in {
        "cluster.num_workers": 2,
        "train.num_images": 480,
        "train.checkpoint_every": 160,
        "tune.cpus_per_worker": 1,
    }.items():
        project.set(key, value)
    project.dvc("repro", "ingest")
    return project


@pytest.fixture
def alpha(tmp_path: Path, project: Project) -> Iterator[Host]:
    """The host with the checkout, head of a Ray cluster of two; on the other the checkout is not there."""
    require_namespaces()
    with Network(tmp_path / "hosts") as network:
        alpha, beta = network.add("alpha"), network.add("beta")
        beta.hide(project.root)
        alpha.start_ray(1)
        beta.start_ray(1, alpha)
        yield alpha


def command(alpha: Host, project: Project, *arguments: str, mlflow: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout, on alpha."""
    own = {name: value for name, value in project.environment.items() if name != "GANPIPE_CACHE"}
    variables = own | {"RAY_ADDRESS": f"{alpha.address}:6379"}
    if mlflow:
        variables["MLFLOW_TRACKING_URI"] = f"http://{alpha.address}:5000"
    return alpha.run(arguments, project.root, env=alpha.environment(**variables), timeout=400)


def refusal(alpha: Host, project: Project, *arguments: str, mlflow: bool = True) -> str:
    """The last line that a command says that somebody has to mend something for."""
    done = command(alpha, project, *arguments, mlflow=mlflow)
    assert done.returncode == 2, f"{done.stdout}\n{done.stderr}"
    return done.stderr.strip().splitlines()[-1]


def test_search_and_training_on_hosts_that_share_no_disk(project: Project, alpha: Host, tmp_path: Path) -> None:
    beta = alpha.network.hosts[1]
    line = refusal(alpha, project, "ganpipe", "check", mlflow=False)
    assert "cluster.storage_path: not set, a folder of this host, but workers may also run on 10.77.0.2" in line
    project.set("cluster.storage_path", str(tmp_path / "shared"))
    line = refusal(alpha, project, "ganpipe", "tune", mlflow=False)
    assert f"cluster.storage_path: got '{tmp_path}/shared', a folder of this host" in line
    project.set("cluster.storage_path", f"file://{tmp_path}/shared")
    line = refusal(alpha, project, "ganpipe", "tune", mlflow=False)
    assert "MLFLOW_TRACKING_URI: 'sqlite:///" in line
    assert "is reached from this host alone" in line
    server = start_mlflow(alpha, tmp_path)
    try:
        line = refusal(alpha, project, "ganpipe", "tune")
        assert "10.77.0.2 of the cluster cannot see this folder, and there is no default DVC remote" in line
        project.dvc("remote", "add", "--default", "store", str(tmp_path / "remote"))
        line = refusal(alpha, project, "ganpipe", "tune")
        assert "shards are not in the DVC remote; push it to a DVC remote that all hosts reach" in line
        assert "`dvc push`" in line
        project.dvc("push")
        done = command(alpha, project, "dvc", "repro", "train")
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    finally:
        server.terminate()
        server.wait()
    assert (project.root / "artifacts" / "train" / "generator.safetensors").exists()
    assert (
        json.loads((project.root / "artifacts" / "train" / "model.json").read_text())["progress"]["images_seen"] == 480
    )
    assert "gan: " in done.stdout
    # Each host has its own cache: beta fetched what alpha read from the checkout.
    manifest = json.loads((project.root / "artifacts" / "shards" / "manifest.json").read_text())
    train = {shard["sha256"] for shard in manifest["shards"] if shard["split"] == "train"}
    assert {path.name for path in (beta.folder / "cache" / "shards").iterdir()} == train
    assert not (alpha.folder / "cache" / "shards").exists()
    assert [*(beta.folder / "cache" / "decoded").glob("*-train/complete.json")]
    assert [*(tmp_path / "shared").glob("train-*/checkpoints/*.pt")], "checkpoints lie where all hosts see them"
