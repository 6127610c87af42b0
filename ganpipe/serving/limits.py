"""Limits on what a client may do, and the security headers of every answer, for all addresses of `app`."""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("ganpipe.serving")

MAX_ADDRESS_LENGTH = 2048
_MAX_CLIENTS = 10_000
_PROBES = ("/healthz", "/readyz")
UPLOAD_PATH = "/api/translate"
"""The only address that accepts a request body."""
SECURITY_HEADERS = {
    # Nothing from other hosts, nothing inline, no `data:`. `blob:` is for images in the memory of the page's own
    # script: the picture that the user chose, and the image that the model made of it.
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' blob:; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def refusal(status: int, message: str, retry_seconds: int | None = None) -> JSONResponse:
    """An error as a JSON answer with a one-line message; `retry_seconds` becomes the header Retry-After."""
    headers = {"Cache-Control": "no-store"}
    if retry_seconds is not None:
        headers["Retry-After"] = str(retry_seconds)
    return JSONResponse({"error": message}, status, headers)


class RateLimit:
    """A token bucket per client: it holds `burst` tokens and gets `rate` tokens per second. An image costs one token,
    and so does a request without images. Used by the event loop's thread only."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, cost: int) -> None:
        """Charge `client`.

        Raises:
            HTTPException: 429, if the client has fewer than `cost` tokens; the message says when to try again.
        """
        now = time.monotonic()
        left, at = self._buckets.pop(client, (float(self._burst), now))
        left = min(self._burst, left + (now - at) * self._rate)
        allowed = left >= cost
        self._buckets[client] = (left - cost if allowed else left, now)
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)  # the client whose last request is the oldest
        if not allowed:
            seconds = max(1, math.ceil((cost - left) / self._rate))
            raise HTTPException(
                429, f"too many images at once; try again in {seconds} s", {"Retry-After": f"{seconds}"}
            )


class Guard:
    """ASGI middleware: checks hosts, methods, sizes and rate, adds security headers, and answers internal errors.

    Args:
        hosts: host names that are accepted, without port; empty for all. On a loopback address this keeps out pages of
            other sites whose name was made to point here (DNS rebinding).
        rate: charged one token per request.
        max_under_way: requests that are handled at the same time, without health probes.
        max_bytes: size of the body at `UPLOAD_PATH`.
    """

    def __init__(
        self, app: ASGIApp, hosts: Collection[str], rate: RateLimit, max_under_way: int, max_bytes: int
    ) -> None:
        self._app, self._hosts, self._rate, self._max_bytes = app, hosts, rate, max_bytes
        self._max_under_way, self._under_way = max_under_way, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
            await send(message)

        counted = scope["path"] not in _PROBES
        answer = self._refuse(scope)
        self._under_way += counted
        try:
            await (answer or self._app)(scope, receive, send_guarded)
        except Exception as error:
            logger.error("%s %r: %s", scope["method"], scope["path"], type(error).__name__, exc_info=True)
            if started:
                raise
            await refusal(500, "this server failed; its log says why")(scope, receive, send_guarded)
        finally:
            self._under_way -= counted

    def _refuse(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if self._hosts and host_name(headers.get("host", "")) not in self._hosts:
            return refusal(421, f"this server answers only to the Host {' or '.join(sorted(self._hosts))}")
        methods = ("POST",) if scope["path"] == UPLOAD_PATH else ("GET", "HEAD")
        if scope["method"] not in methods:
            answer = refusal(405, f"the method is {scope['method'][:20]}, expected {methods[0]}")
            answer.headers["Allow"] = ", ".join(methods)
            answer.headers["Connection"] = "close"
            return answer
        length = len(scope["raw_path"]) + len(scope["query_string"])
        if length > MAX_ADDRESS_LENGTH:
            return refusal(414, f"the address has {length} bytes, expected at most {MAX_ADDRESS_LENGTH}")
        if (refused := self._refuse_body(headers, scope["path"] == UPLOAD_PATH)) is not None:
            refused.headers["Connection"] = "close"  # because the body is not read
            return refused
        if scope["path"] not in _PROBES:
            if self._under_way >= self._max_under_way:
                return refusal(503, "too many requests are under way; try again in 1 s", 1)
            try:
                self._rate.take(client_of(scope), 1)
            except HTTPException as error:
                return refusal(error.status_code, error.detail, int((error.headers or {})["Retry-After"]))
        return None

    def _refuse_body(self, headers: Headers, is_taken: bool) -> JSONResponse | None:
        """The refusal of a request because of its headers about the body, before any of the body is read; else None."""
        length = headers.get("content-length", "")
        if not is_taken:
            has_body = length not in ("", "0") or "transfer-encoding" in headers
            return refusal(413, "the request has a body, expected none") if has_body else None
        if not length.isdecimal() or "transfer-encoding" in headers:
            return refusal(411, "the request does not say the picture's size, expected a Content-Length")
        if len(length) > 18 or int(length) > self._max_bytes:
            return refusal(413, f"the picture has {length[:18]} bytes, expected at most {self._max_bytes}")
        # For a body of these types, the browser asks first (CORS preflight) if a page of another site may send it, and
        # is refused. Without this check, pages of other sites could send bodies of other types without asking.
        if not headers.get("content-type", "").startswith(("image/", "application/octet-stream")):
            return refusal(
                415, "the Content-Type is not that of a picture, expected image/png, image/jpeg or image/webp"
            )
        return None


def client_of(scope: Scope) -> str:
    """The client's address."""
    return str(scope["client"][0]) if scope.get("client") else ""


def host_name(host: str) -> str:
    """The name in a Host header, without the port: `[::1]:8090` -> `[::1]`."""
    if host.startswith("["):
        return host[: host.find("]") + 1].lower()
    return host.partition(":")[0].lower()
