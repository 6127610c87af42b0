"""A headless Chromium for tests of pages, driven over its DevTools protocol.

    with Browser() as browser:
        page = browser.page(width=400)
        page.goto(path.as_uri())
        assert page.evaluate("document.title") == "..."
        assert page.errors == [] and page.requests == [path.as_uri()]

It reaches this machine only: every other host's name resolves to nothing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--remote-debugging-port=0",
)  # fmt: skip


KEYS = {"Tab": 9, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


def find_browser() -> str | None:
    """Path of an installed Chromium or Chrome; the variable CHROMIUM names another one."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def require_browser() -> str:
    """Path of the browser; without one a test is skipped, and fails where CI is set."""
    found = find_browser()
    if found is None:
        reason = f"no browser here (looked for {', '.join(NAMES)}): apt-get install chromium, or set CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}. CI is set, so this is no reason to skip")
        pytest.skip(reason)
    return found


class Browser:
    """One Chromium process with a new empty profile; a context manager."""

    def __init__(self, start_seconds: float = 60.0) -> None:
        executable = require_browser()
        self._profile = tempfile.mkdtemp(prefix="ganpipe-browser-")
        self._process = subprocess.Popen(
            [executable, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            port, path = self._address(time.monotonic() + start_seconds)
            self._socket = connect(f"ws://127.0.0.1:{port}{path}", max_size=None, max_queue=None, proxy=None)
        except BaseException:
            self._end()
            raise
        self._last_id = 0
        self._pages: dict[str, Page] = {}

    def _address(self, deadline: float) -> tuple[str, str]:
        file = Path(self._profile) / "DevToolsActivePort"
        while True:
            lines = file.read_text().split() if file.exists() else []
            if len(lines) == 2:
                return lines[0], lines[1]
            if self._process.poll() is not None:
                raise RuntimeError(f"the browser ended with exit code {self._process.returncode} while starting")
            if time.monotonic() > deadline:
                raise TimeoutError("the browser did not start in time")
            time.sleep(0.05)

    def page(self, width: int = 1280, height: int = 900) -> Page:
        """A new tab of `width` x `height` CSS pixels; up to 640 wide it is a phone's (touch, mobile viewport)."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        return page

    def call(self, method: str, session: str | None = None, timeout: float = 60.0, **params: Any) -> dict[str, Any]:
        """A command of the DevTools protocol, and its result."""
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        self._socket.send(json.dumps(message if session is None else {**message, "sessionId": session}))
        deadline = time.monotonic() + timeout
        while True:
            answer = json.loads(self._socket.recv(timeout=max(0.0, deadline - time.monotonic())))
            if answer.get("id") == self._last_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._hear(answer)

    def listen(self, seconds: float) -> None:
        """Take in what pages report for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                self._hear(json.loads(self._socket.recv(timeout=left)))
            except TimeoutError:
                return

    def _hear(self, event: Mapping[str, Any]) -> None:
        page = self._pages.get(event.get("sessionId", ""))
        if page is not None and "method" in event:
            page.hear(event["method"], event["params"])

    def close(self) -> None:
        self._socket.close()
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its renderers are in its group
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Page:
    """A tab. `errors` and `requests` hold what happened since the last `goto`."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target
        self.errors: list[str] = []
        """Uncaught exceptions, console errors, refused or failed requests, breaches of the content security policy."""
        self.requests: list[str] = []
        """URLs asked for, the page's own first; data: URLs are left out."""
        self._loaded = False

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def goto(self, url: str, seconds: float = 60.0) -> None:
        """Open `url` and wait until it has loaded, and half a second more for what its scripts do."""
        self.errors.clear()
        self.requests.clear()
        self._loaded = False
        failure = self.call("Page.navigate", url=url).get("errorText")
        if failure:
            raise RuntimeError(f"{url}: {failure}")
        deadline = time.monotonic() + seconds
        while not self._loaded:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} did not load within {seconds:g} s")
            self._browser.listen(0.1)
        self._browser.listen(0.5)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for.

        Raises:
            RuntimeError: it throws.
        """
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(_exception(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 30.0) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not true within {seconds:g} s: {expression}")
            self._browser.listen(0.1)
        return value

    def click(self, selector: str) -> None:
        """A real mouse click in the middle of the first element that `selector` finds, scrolled into view."""
        x, y = self.move_to(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """`mousePressed`, `mouseMoved` or `mouseReleased` with the left button held."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def key(self, key: str) -> None:
        """Press and release a key of `KEYS`."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=KEYS[key])

    def move_to(self, selector: str, across: float = 0.5) -> tuple[float, float]:
        """Scroll the first element that `selector` finds into view and put the mouse on it: `across` of its width from
        the left, halfway down. Returns the point."""
        x, y = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center', behavior: 'instant'}); const r = e.getBoundingClientRect();"
            f" return [r.x + r.width * {across}, r.y + r.height / 2]; }})()"
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        return x, y

    def resize(self, width: int, height: int) -> None:
        """The viewport in CSS pixels."""
        phone = width <= 640
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, mobile=phone, deviceScaleFactor=1)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def media(self, kind: str = "", **features: str) -> None:
        """Emulate a medium ("print") and media features, `prefers_color_scheme="dark"`."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", media=kind, features=named)

    def scripts(self, enabled: bool) -> None:
        """Whether pages opened from now on may run JavaScript."""
        self.call("Emulation.setScriptExecutionDisabled", value=not enabled)

    def screenshot(self, path: Path, full: bool = True) -> Path:
        """A PNG of the whole page, or of the viewport only."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full, **self._clip(full))
        path.write_bytes(base64.b64decode(data["data"]))
        return path

    def _clip(self, full: bool) -> dict[str, Any]:
        if not full:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def pdf(self, path: Path) -> Path:
        """The page as it prints."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"]))
        return path

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)

    def hear(self, method: str, params: Mapping[str, Any]) -> None:
        """Take in an event of the DevTools protocol."""
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("data:", "blob:")):
                self.requests.append(url)
        elif method == "Network.loadingFailed" and not params.get("canceled"):
            self.errors.append(f"request failed: {params['errorText']}")
        elif method == "Runtime.exceptionThrown":
            self.errors.append(_exception(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            values = [str(item.get("value", item.get("description", ""))) for item in params["args"]]
            self.errors.append(" ".join(values))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())


def _exception(details: Mapping[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])
