"""A real S3 API on loopback for the tests: moto's server as a process of its own, which keeps all in memory."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECRET = "a-secret-that-no-log-may-hold"
"""The secret key that tests give out; a test that reads logs and outputs looks for it."""
BUCKET = "ganpipe"


@dataclass(frozen=True)
class ObjectStore:
    """An S3 API that answers at `endpoint`, with the bucket `ganpipe` in it."""

    endpoint: str
    config: Path
    """An empty file, for DVC takes no device for one."""

    @property
    def environment(self) -> dict[str, str]:
        """All by which fsspec, DVC, MLflow and Ray find it: the variables of any S3 client."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            # Nothing but these counts, whoever runs the tests.
            "AWS_CONFIG_FILE": str(self.config),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.config),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def client(self) -> Any:
        """A client of AWS's own library."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="tests",
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def keys(self, prefix: str = "") -> list[str]:
        """Names of all objects in the bucket that begin with `prefix`."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def url(self, path: str) -> str:
        return f"s3://{BUCKET}/{path}"


def free_port(host: str) -> int:
    """One that nobody listens on now."""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def serving(log: Path, host: str = "127.0.0.1", port: int | None = None) -> Iterator[ObjectStore]:
    """A store for as long as the context lasts; what the server says goes to `log`."""
    config = log.with_name("aws-config")
    config.touch()
    store = ObjectStore(f"http://{host}:{port or free_port(host)}", config)
    command = [sys.executable, "-m", "moto.server", "--host", host, "--port", store.endpoint.rpartition(":")[2]]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        _wait(store, process, log)
        store.client.create_bucket(Bucket=BUCKET)
        yield store
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(store: ObjectStore, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            with opener.open(f"{store.endpoint}/moto-api/data.json", timeout=2):
                return
        except OSError:
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.1)
