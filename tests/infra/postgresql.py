"""PostgreSQL from Debian: its programs, and a database folder as the image `postgres` makes it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from object_store import free_port

USER = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")
"""PostgreSQL refuses to run as root."""


def programs() -> Path:
    """The folder of `initdb` and `postgres`. As root on Debian they are installed where they are missing."""
    if (found := _found()) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}
        subprocess.run(["apt-get", "update", "-qq"], **quiet)  # type: ignore[call-overload]
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql"],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            **quiet,  # type: ignore[call-overload]
        )
        found = _found()
    if found is not None and os.geteuid() == 0:
        return found
    reason = (
        "PostgreSQL is not here: apt-get install postgresql" if found is None else "needs root, to be somebody else"
    )
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _found() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return folders[-1].parent if folders else None


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A folder of PostgreSQL's user, where that user may go: pytest's folders are root's alone."""
    with tempfile.TemporaryDirectory(prefix="ganpipe-postgresql-") as name:
        os.chmod(name, 0o755)
        shutil.chown(name, "postgres", "postgres")
        yield Path(name)


def initialise(folder: Path, user: str, password: str, scripts: Sequence[Path]) -> None:
    """What the image's entrypoint does with an empty volume: a cluster with this superuser, passwords over the network,
    and the scripts run once.

    Args:
        folder: does not exist yet, in one of `own_folder`.
    """
    bin_folder = programs()
    secret = folder.with_name(f"{folder.name}.password")
    secret.touch(mode=0o600)
    secret.write_text(password)
    shutil.chown(secret, "postgres", "postgres")
    command = [str(bin_folder / "initdb"), f"--pgdata={folder}", f"--username={user}", f"--pwfile={secret}"]
    command += ["--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
    _run(command)
    secret.unlink()
    with (folder / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all scram-sha-256\n")
    for script in scripts:
        _run([str(bin_folder / "postgres"), "--single", "-D", str(folder), "postgres"], script.read_text())


def _run(command: Sequence[str], told: str = "") -> None:
    done = subprocess.run([*USER, *command], input=told, capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    assert "ERROR" not in done.stderr, done.stderr


@contextlib.contextmanager
def serving(user: str, password: str, scripts: Sequence[Path] = ()) -> Iterator[int]:
    """A server on 127.0.0.1 for as long as the context lasts; its port."""
    bin_folder = programs()
    with own_folder() as folder:
        initialise(folder / "data", user, password, scripts)
        with _running(bin_folder, folder, user) as port:
            yield port


@contextlib.contextmanager
def _running(bin_folder: Path, folder: Path, user: str) -> Iterator[int]:
    port = free_port("127.0.0.1")
    command = [*USER, str(bin_folder / "postgres"), "-D", str(folder / "data"), "-c", "listen_addresses=127.0.0.1"]
    command += ["-c", f"port={port}", "-c", "unix_socket_directories=", "-c", "max_connections=200"]
    log = folder / "postgresql.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd="/", start_new_session=True)
    try:
        ready = [str(bin_folder / "pg_isready"), "--host=127.0.0.1", f"--port={port}", f"--username={user}", "--quiet"]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, check=False).returncode != 0:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield port
    finally:
        # SIGINT: sessions are cut and the server ends in order, with its shared memory.
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
