"""What the tests of the page share: a registry of real small generators, a served page, and plain HTTP."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from registry_parts import build, tracker_in

from ganpipe.packaging import package
from ganpipe.tracking.runs import Tracker

NAME = "ganpipe-mnist"


class Registry:
    """A model `NAME`, by default in an SQLite database of its own; versions are registered one after the other."""

    def __init__(self, root: Path, tracker: Tracker | None = None) -> None:
        self.root = root
        self.tracker = tracker or tracker_in(root)
        self.client = self.tracker.client()
        self._run_id = self.client.create_run(self.tracker.experiment_id(self.client)).info.run_id
        self.client.create_registered_model(NAME)

    @property
    def environment(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.tracker.uri}

    def add(
        self,
        gan: str = "gan",
        seed: int = 0,
        card: Mapping[str, bytes] | None = None,
        tags: dict[str, str] | None = None,
        classes: tuple[str, ...] = (),
    ) -> int:
        """Register a generator with random weights; returns the version's number.

        Args:
            card: files beside its model.json; without, the version is one from before there were cards.
        """
        folder = self.root / f"built-{gan}-{seed}"
        built = folder / "package" if folder.exists() else build(folder, gan, seed=seed, classes=classes)
        with mock.patch.object(package, "files_for_people", return_value={}):
            model = package.log_model(self.client, self._run_id, built, gan)
        if card:
            place = self.root / "card" / "artifacts"
            place.mkdir(parents=True)
            for name, content in card.items():
                (place / name).write_bytes(content)
            self.client.log_model_artifacts(model.model_id, str(place.parent))
        return self.add_logged(model.model_id, tags)

    def add_package(self, built: Path, gan: str) -> int:
        """Register a package as it is."""
        return self.add_logged(package.log_model(self.client, self._run_id, built, gan).model_id)

    def add_without_interpolation(self, seed: int = 0) -> int:
        """A version as they were before the columns `to_seed` and `mix`: its signature lacks them."""
        whole = package.signature

        def earlier(description: Mapping[str, Any]) -> Any:
            from mlflow.models import ModelSignature
            from mlflow.types import Schema

            found = whole(description)
            return ModelSignature(
                Schema([column for column in found.inputs if column.name not in ("to_seed", "mix")]), found.outputs
            )

        with mock.patch.object(package, "signature", earlier):
            return self.add("gan", seed)

    def add_logged(self, model_id: str, tags: dict[str, str] | None = None) -> int:
        with mock.patch.dict(os.environ, self.environment):
            made = self.client.create_model_version(
                NAME, f"models:/{model_id}", self._run_id, tags or {}, model_id=model_id
            )
        return int(made.version)

    def add_directory(self, path: Path) -> int:
        """Register a directory that holds any MLflow model."""
        model = self.client.create_logged_model(self.tracker.experiment_id(self.client), name="other")
        self.client.log_model_artifacts(model.model_id, str(path))
        return self.add_logged(model.model_id)

    def promote(self, version: int) -> None:
        self.client.set_registered_model_alias(NAME, "champion", str(version))


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def pixels(self) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(self.body)))


def get(port: int, address: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    """One request on a connection of its own; `address` is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, address, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@dataclass
class Served:
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, address: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        return get(self.port, address, method, body, **headers)

    def until(self, condition: Any, seconds: float = 30) -> Any:
        """`condition`'s first true result."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        return found


@contextmanager
def served(root: Path, environment: Mapping[str, str], *flags: str) -> Iterator[Served]:
    """`ganpipe serve` as a process of its own, on a free port."""
    log = root / f"serve-{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "ganpipe", "serve", "--port", "0", "--poll-seconds", "0.3", *flags]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=root, env={**os.environ, **environment})
    server = Served(0, process, log)
    try:
        found = server.until(lambda: re.search(r"http://127\.0\.0\.1:(\d+) shows", log.read_text()), 120)
        server.port = int(found[1])
        server.until(lambda: server.get("/healthz").status == 200)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
