"""A whole run with secrets wherever a person may have them: none is in anything that the run shows or leaves behind."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from projects import Project, make_project

from ganpipe import processes, services
from ganpipe.service_kinds import free_port

pytestmark = pytest.mark.slow

MARK = "s3cr3t-m4rk3r"
"""In every secret below, which makes each of them known again in whatever file it turns up."""
USER = "shards-user"
ENVIRONMENT = {
    "SHARDS_USER": USER,
    "SHARDS_PASSWORD": f"{MARK}-shards",
    "SHARDS_TOKEN": f"{MARK}-query",
    "AWS_ACCESS_KEY_ID": f"{MARK}-key-id",
    "AWS_SECRET_ACCESS_KEY": f"{MARK}-aws",
    "AWS_SESSION_TOKEN": f"{MARK}-session",
    "HF_TOKEN": f"{MARK}-hf",
    "GITHUB_TOKEN": f"{MARK}-github",
    "PREFECT_API_KEY": f"{MARK}-prefect",
    "SLACK_WEBHOOK_URL": f"https://hooks.example/{MARK}",
}


def shard_of(images: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, path in enumerate(images):
            for suffix, content in (("png", path.read_bytes()), ("cls", b"%d" % (number % 2))):
                info = tarfile.TarInfo(f"{number:04d}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("secrets") / "project")


@pytest.fixture(scope="module")
def shards(project: Project) -> Iterator[str]:
    """Where a shard is served to who has the user, the password and the token."""
    content = shard_of(sorted((project.root / "images").rglob("*.png")))
    known = base64.b64encode(f"{USER}:{ENVIRONMENT['SHARDS_PASSWORD']}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Authorization") == f"Basic {known}"
            good = asked and self.path == f"/train.tar?token={ENVIRONMENT['SHARDS_TOKEN']}"
            self.send_response(200 if good else 403)
            self.send_header("Content-Length", str(len(content) if good else 0))
            self.end_headers()
            if good and self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://$SHARDS_USER:$SHARDS_PASSWORD@127.0.0.1:{server.server_address[1]}/train.tar?token=$SHARDS_TOKEN"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def tracking(project: Project) -> Iterator[str]:
    """The URL, with a password, of an MLflow server, which keeps its data in the project."""
    port = free_port()
    data = project.root / "mlflow"
    data.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", str(data / "artifacts")]
    variables = {**project.environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (data / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=data, env=variables, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                assert time.monotonic() < deadline, (data / "server.log").read_text()
                time.sleep(0.3)
        yield f"http://somebody:{MARK}-mlflow@127.0.0.1:{port}"
    finally:
        processes.end_tree(process.pid)


def leaks(*places: Path) -> list[str]:
    """Files below these that hold a secret, as it is, packed in base64, or quoted for a URL."""
    mark = MARK.encode()
    # A text in base64 looks in three ways, by where it begins.
    wanted = [mark, *(base64.b64encode(b"x" * shift + mark)[4 if shift else 0 : -4] for shift in range(3))]
    found = []
    for place in places:
        for path in place.rglob("*") if place.is_dir() else [place]:
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                found += [f"{path}: {one!r}" for one in wanted if one in content]
    return found


def test_no_output_holds_a_secret(project: Project, shards: str, tracking: str) -> None:
    project.set("data.source", "webdataset")
    project.set("sources.webdataset.shards", [shards])
    project.set("sources.webdataset.label", "cls")
    project.set("sources.webdataset.classes", 2)
    project.set("tune.num_trials", 0)
    project.run("git", "remote", "add", "origin", f"https://me:{MARK}-git@git.example/x.git")
    project.run("dvc", "remote", "add", "--local", "--default", "store", f"https://me:{MARK}-dvc@127.0.0.1:9/x")
    project.commit("A source with a password")
    where_people_keep_them = {project.root / ".git" / "config", project.root / ".dvc" / "config.local"}
    variables = {**project.environment, **ENVIRONMENT, "MLFLOW_TRACKING_URI": tracking}
    person = Project(project.root, variables)
    told, ray_folder = [], ""
    try:
        told.append(person.run(sys.executable, "-m", "pipelines"))
        told.append(person.run("dvc", "repro", "--single-item", "--force", "register"))  # without Prefect in between
        told.append(person.run("ganpipe", "models"))
        record = services._record(project.root, "ray")
        assert record is not None
        ray_folder = record.folder
        # What goes wrong is told, too: a shard that may not be had, an MLflow that is away.
        wrong = {**variables, "SHARDS_TOKEN": f"{MARK}-wrong"}
        told.append(Project(project.root, wrong).run("dvc", "repro", "--single-item", "--force", "ingest", code=255))
        assert "HTTP 403" in told[-1]
        away = {**variables, "MLFLOW_TRACKING_URI": f"http://somebody:{MARK}-mlflow@127.0.0.1:9"}
        told.append(Project(project.root, away).run("ganpipe", "models", code=75))
        assert "127.0.0.1:9" in told[-1]
        assert not leaks(Path(ray_folder))
    finally:
        person.run("ganpipe", "down")
    lines = [line for text in told for line in text.splitlines() if MARK in line]
    assert (project.root / "dvc.lock").is_file()
    assert "SHARDS_PASSWORD" in (project.root / "dvc.lock").read_text(), "the settings are there, with names only"
    assert (project.root / "mlflow" / "server.db").is_file()
    found = [leak for leak in leaks(project.root, Path(project.environment["GANPIPE_CACHE"]))
             if Path(leak.partition(": ")[0]) not in where_people_keep_them]  # fmt: skip
    assert not lines + found, "\n".join(lines + found)
    assert os.path.exists(project.root / ".ganpipe" / "prefect"), "Prefect's database was among what was looked through"
    told_by_hand = leaks(*where_people_keep_them)
    assert len(told_by_hand) == 2, "the search itself finds what is there"
