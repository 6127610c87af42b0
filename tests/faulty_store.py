"""A proxy before a real S3 API that refuses or damages uploads on purpose: it stands for a store that does.

A request that it lets through is answered by the API itself; a damaged upload has one byte flipped on its way there.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from object_store import ObjectStore

REFUSED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>AccessDenied</Code><Message>The store is closed for tests</Message></Error>"""


@dataclass
class Faults:
    """What happens to the next uploads whose name holds `part`: so many are refused (-1: all), then so many damaged."""

    part: str = ""
    refuse: int = 0
    damage: int = 0
    struck: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, path: str) -> str:
        """The fault that an upload to `path` meets: `refuse`, `damage` or none."""
        with self._lock:
            for name in ("refuse", "damage"):
                left = getattr(self, name)
                if self.part in path and left:
                    setattr(self, name, left - 1 if left > 0 else left)
                    self.struck.append(f"{name} {path}")
                    return name
        return ""

    def none(self) -> None:
        """From here on all goes well."""
        self.refuse = self.damage = 0


@contextlib.contextmanager
def faulty(store: ObjectStore) -> Iterator[tuple[ObjectStore, Faults]]:
    """`store` as seen through the proxy, and the switch of its faults."""
    faults = Faults()
    place = urlsplit(store.endpoint)

    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self._body()
            fault = faults.of(self.path) if self.command == "PUT" and body else ""
            if fault == "refuse":
                self._answer(403, {"Content-Type": "application/xml"}, REFUSED)
                return
            if fault == "damage":
                middle = len(body) // 2
                body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
            upstream = http.client.HTTPConnection(place.hostname or "", place.port or 80, timeout=30)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
            upstream.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
            answer = upstream.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())
            upstream.close()

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            told = {name.lower(): value for name, value in headers.items()}
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            size = told.get("content-length", str(len(body))) if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", size)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

        def log_message(self, *arguments: Any) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield replace(store, endpoint=f"http://127.0.0.1:{server.server_port}"), faults
    finally:
        server.shutdown()
        server.server_close()
