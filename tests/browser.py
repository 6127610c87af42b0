"""A real browser for tests: Debian's Chromium, driven through its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-port=0",
]  # fmt: skip


def chromium() -> str:
    """Where Chromium is. Without one the test fails where CI is set, and is skipped on a developer's machine."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        reason = "no chromium here: apt-get install chromium"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


class Browser:
    """One tab. Use it as a context manager.

    Attributes:
        requested: addresses that the tab asked for, whatever came of it.
        complaints: what the page's console and the browser say went wrong.
    """

    def __init__(self) -> None:
        self._executable = chromium()
        self.requested: list[str] = []
        self.complaints: list[str] = []
        self._next_id = 0

    def __enter__(self) -> Browser:
        self._profile = tempfile.TemporaryDirectory(prefix="ganpipe-chromium-", ignore_cleanup_errors=True)
        self._log = Path(self._profile.name, "stderr.log")
        command = [self._executable, *_FLAGS, f"--user-data-dir={self._profile.name}/profile", "about:blank"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True)
        try:
            port = self.until(self._port, 60)
            self._socket = self.until(lambda: self._tab(port), 60)
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._profile.cleanup()

    def _port(self) -> int | None:
        found = re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", self._log.read_text(errors="replace"))
        assert self._process.poll() is None, self._log.read_text(errors="replace")
        return int(found[1]) if found else None

    def _tab(self, port: int) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
        return connect(tabs[0]["webSocketDebuggerUrl"], max_size=None) if tabs else None

    def until(self, condition: Callable[[], Any], seconds: float = 20) -> Any:
        """`condition`'s first true result."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.05)
        return found

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol; its result."""
        self._next_id += 1
        self._socket.send(json.dumps({"id": self._next_id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._next_id:
                assert "error" not in message, message["error"]
                return dict(message["result"])
            self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        method, values = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requested.append(values["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(values["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif method == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.complaints.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; a promise's result."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def go(self, address: str) -> None:
        """Load a page with all its pictures."""
        self.call("Page.navigate", url=address)
        self.until(lambda: self.js("location.href !== 'about:blank' && document.readyState") == "complete")

    def key(self, key: str, code: int = 0) -> None:
        """Press a key: `Tab`, `ArrowRight`, `Enter`, …"""
        codes = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "ArrowLeft": 37, " ": 32}
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code or codes.get(key, 0), **text
            )

    def mouse(self, kind: str, x: float, y: float) -> None:
        """`mousePressed`, `mouseMoved` or `mouseReleased` with the left button."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def size(self, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        """The window, and what the person prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """What one sees, or the whole page, as a PNG file."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
