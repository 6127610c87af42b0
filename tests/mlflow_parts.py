"""Real MLflow servers, a registered model where ganpipe is not installed, and processes that promote at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from registry_parts import NAME, add_version

from ganpipe.errors import GanpipeError
from ganpipe.registry.alias_history import AliasHistory, AliasState
from ganpipe.service_kinds import free_port
from ganpipe.tracking.runs import Tracker

CHAMPION = "champion"


def start_server(root: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a server and return when it answers."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
    command += ["--backend-store-uri", f"sqlite:///{root}/server.db", "--artifacts-destination", str(root / "files")]
    with (root / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=root)
    tracker = Tracker(f"http://127.0.0.1:{port}", "e", str(root))
    deadline = time.monotonic() + 120
    while True:
        try:
            tracker.check(2.0)
            return process
        except GanpipeError:
            if time.monotonic() > deadline or process.poll() is not None:
                stop_server(process)
                raise
            time.sleep(0.2)


def stop_server(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def model_server(uri: str, root: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of `mlflow models serve`, a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with (root / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=root,
            env={**os.environ, **environment},
        )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2)
                break
            except OSError:
                assert time.monotonic() < deadline, (root / "serve.log").read_text()
                assert process.poll() is None, (root / "serve.log").read_text()
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        stop_server(process)


def ask(address: str, body: Any, content_type: str = "application/json", timeout: float = 300) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def race(folder: Path, tracker: Tracker, run_id: str, rounds: int, **environment: str) -> None:
    """Two processes promote at the same moment, `rounds` times: each time one wins and the other names it."""
    client = tracker.client()
    add_version(client, run_id, 500.0)
    for number in range(1, rounds + 1):
        for _ in range(2):
            add_version(client, run_id, 400.0 - number, f"{number:064d}"[::-1])
    AliasHistory(client, tracker, NAME).move(AliasState(CHAMPION, 0, None), 1, "the first", "registered")
    script = [sys.executable, str(Path(__file__).with_name("registry_racer.py")), str(folder)]
    racers = [
        subprocess.Popen(
            [*script, who, other, str(rounds)], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        for who, other in (("ada", "bob"), ("bob", "ada"))
    ]
    try:
        told = [[json.loads(line) for line in racer.communicate(timeout=300)[0].splitlines()] for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
    assert [len(lines) for lines in told] == [rounds, rounds]
    winners = []
    for ada, bob in zip(*told, strict=True):
        won, lost = (ada, bob) if ada["moved"] else (bob, ada)
        assert (won["moved"], lost["moved"]) == (True, False)
        assert lost["says"].startswith(f"{won['who']} moved champion of tests to version {won['version']} at ")
        winners.append(won["version"])
    moves = AliasHistory(client, tracker, NAME).moves(CHAMPION)
    assert [move.to for move in moves] == [1, *winners]
    assert [move.before for move in moves] == [None, 1, *winners[:-1]]
    assert int(client.get_registered_model(NAME).aliases[CHAMPION]) == winners[-1]


UNINSTALLED = """
import importlib.util, json, sys
sys.path.append(sys.argv[1])  # third-party packages; without `site`, no editable install is found
assert importlib.util.find_spec("ganpipe") is None
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[2])
images = model.predict(pd.DataFrame({"seed": [0, 1, 7], "label": [3, 0, 9]}))
assert "ganpipe" not in sys.modules
json.dump(images.tolist(), sys.stdout)
"""


def load_where_ganpipe_is_not_installed(uri: str, cwd: Path, **environment: str) -> np.ndarray:
    """The images of three rows, from a process that has the third-party packages only and must not unpickle."""
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", **environment}
    command = [sys.executable, "-I", "-S", "-c", UNINSTALLED, sysconfig.get_paths()["purelib"], uri]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout.splitlines()[-1]), np.uint8)
