"""Events over HTTP, and the watcher that sends them. The receiver is a real server that keeps what it gets."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from ganpipe import events
from ganpipe.errors import GanpipeError
from ganpipe.stages import watch


@pytest.fixture
def received(monkeypatch):
    """What a server at PREFECT_API_URL was sent: (path, authorization, events)."""
    found: list[tuple[str, str | None, list[dict]]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.append((self.path, self.headers.get("Authorization"), body))
            self.send_response(204)
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
    yield found
    server.shutdown()


def test_an_event_is_what_prefect_s_api_takes(received, monkeypatch):
    from prefect.events.schemas.events import Event

    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:word")
    assert events.emit(events.DATA_CHANGED, {"prefect.resource.id": "ganpipe.source.folder"}, {"added": 3})
    ((path, authorization, body),) = received
    assert (path, authorization) == ("/api/events", "Basic dXNlcjp3b3Jk")
    event = Event.model_validate(body[0])
    assert (event.event, event.resource.id, event.payload) == (
        "ganpipe.data.changed",
        "ganpipe.source.folder",
        {"added": 3},
    )


def test_no_server_is_no_error(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert not events.emit("x", {"prefect.resource.id": "y"}, {}, root=tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert not events.emit("x", {"prefect.resource.id": "y"}, {}, root=tmp_path)
    assert "did not take the event x" in caplog.text


class _Done(Exception):
    """Ends a watch that would go on for ever."""


def _watch(looks: list[str | None], answers: list[bool]) -> list[tuple[str, str]]:
    """What is told where the fingerprints are `looks`, one a second, and Prefect's answers are `answers`."""
    told: list[tuple[str, str]] = []
    left = iter(looks)

    def fingerprint() -> str:
        try:
            look = next(left)
        except StopIteration:
            raise _Done from None
        if look is None:
            raise GanpipeError("images: not mounted")
        return look

    def tell(before: str, after: str) -> bool:
        told.append((before, after))
        return answers[len(told) - 1]

    with pytest.raises(_Done):
        watch.watch(fingerprint, tell, every_seconds=1, settle_seconds=2, sleep=lambda seconds: None)
    return told


@pytest.mark.parametrize(
    ("looks", "answers", "told"),
    [
        ("aaaa", [], []),
        ("abbbbb", [True], [("a", "b")]),
        ("abcdddd", [True], [("a", "d")]),  # a copy under way is one change
        ("abbaaaa", [], []),  # gone before it settled
        ("abbbbbb", [False, False, True], [("a", "b"), ("a", "b"), ("a", "b")]),
        ("abbbccc", [True, True], [("a", "b"), ("b", "c")]),
        ("a.....a", [], []),  # away for a while
        (".aabbbb", [True], [("a", "b")]),
    ],
)
def test_what_is_told_of_changes(looks, answers, told):
    assert _watch([None if look == "." else look for look in looks], answers) == told
