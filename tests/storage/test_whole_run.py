"""One whole run with everything that is shared by URL on S3: source, checkpoints, DVC remote, MLflow's files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from object_store import SECRET, ObjectStore, free_port
from projects import Project, make_project
from test_object_store import tar_of, wait_for

from ganpipe import services
from ganpipe.tracking.runs import Tracker

pytestmark = pytest.mark.slow


@contextmanager
def mlflow_server(root: Path, store: ObjectStore) -> Iterator[Tracker]:
    """A server that keeps all files in the bucket, below `mlflow/`; only it has to know the store."""
    port = free_port("127.0.0.1")
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root}/server.db", "--artifacts-destination", store.url("mlflow")]
    variables = {**os.environ, **store.environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = root / "mlflow.log"
    with log.open("wb") as file, subprocess.Popen(command, env=variables, stdout=file, stderr=file) as server:
        try:
            tracker = Tracker(f"http://127.0.0.1:{port}", "ganpipe", str(root / "spool"))
            wait_for(tracker, server, log)
            yield tracker
        finally:
            server.terminate()


@contextmanager
def seen(store: ObjectStore, prefix: str) -> Iterator[set[str]]:
    """All objects below `prefix` that were ever there within the context, looked for twice a second."""
    found: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            found.update(store.keys(prefix))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def make(root: Path, store: ObjectStore, tracking_uri: str) -> Project:
    """A checkout whose images come from the bucket, with checkpoints and the DVC remote there."""
    for number in range(2):
        store.client.put_object(
            Bucket="ganpipe", Key=f"source/part-{number}.tar", Body=tar_of(100 * number, 100 * (number + 1))
        )
    project = make_project(root)
    project.environment.update(store.environment | {"MLFLOW_TRACKING_URI": tracking_uri})
    project.set("data.source", "webdataset")
    project.set("sources.webdataset.shards", [store.url("source/part-{0..1}.tar")])
    project.set("sources.webdataset.label", "cls")
    project.set("sources.webdataset.classes", ["left", "right"])
    project.set("cluster.storage_path", store.url("work"))
    project.dvc("remote", "add", "--default", "store", store.url("dvc"))
    project.commit("Everything in the bucket")
    return project


def holding(secret: str, folder: Path) -> list[str]:
    """Files below `folder` in which the secret stands."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [str(path) for path in files if secret.encode() in path.read_bytes()]


def test_a_run_with_all_that_is_shared_in_a_bucket(s3: ObjectStore, tmp_path: Path) -> None:
    with mlflow_server(tmp_path, s3) as tracker, seen(s3, "work/") as work:
        project = make(tmp_path / "project", s3, tracker.uri)
        try:
            said = project.run("dvc", "repro")
            project.commit("What the pipeline made")
            ray = json.loads((project.root / services.STATE / "ray.json").read_text())["folder"]
            logged = holding(SECRET, Path(ray))
        finally:
            services.stop(project.root)
        made = project.files()
        checkpoints = {key.rsplit("/", 1)[-1] for key in work if "/train-" in f"/{key}" and key.endswith(".pt")}
        assert checkpoints == {"checkpoint-000000000512.pt", "checkpoint-000000001008.pt"}, work
        assert any("/search/" in key for key in work), "Ray Tune kept its notes elsewhere"
        assert [key for key in s3.keys("work/") if key != "work/"] == [], "an ended stage leaves nothing behind"
        # MLflow: the packaged model and the sample grids, through the server.
        kept = s3.keys("mlflow/")
        assert [name for name in ("model.json", "generator.safetensors", "samples.png", "score_real.csv") if not any(
            key.endswith(f"/{name}") for key in kept)] == []  # fmt: skip
        grid = tmp_path / "grid.png"
        project.run("ganpipe", "sample", "--model", "@champion", "--num", "4", "--seed", "7", "--out", str(grid))
        assert grid.read_bytes().startswith(b"\x89PNG")
        # DVC: a colleague's clone gets the same bytes, and has nothing to do.
        project.dvc("push")
        assert len(s3.keys("dvc/files/md5/")) > 10
        shutil.rmtree(project.root / "artifacts")
        shutil.rmtree(project.root / ".dvc" / "cache")
        project.dvc("pull")
        assert project.files() == made
        project.run("git", "clone", "--quiet", str(project.root), str(tmp_path / "theirs"))
        theirs = Project(tmp_path / "theirs", project.environment)
        theirs.dvc("pull")
        assert theirs.files() == made
        assert "up to date" in theirs.dvc("repro")
    assert SECRET not in said
    assert logged == []
    assert holding(SECRET, tmp_path) == []
    assert not any(SECRET.encode() in s3.client.get_object(Bucket="ganpipe", Key=key)["Body"].read() for key in kept)
