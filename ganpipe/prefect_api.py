"""Prefect's API by plain requests, as any HTTP client can send them: nothing of Prefect is imported."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from . import environment
from .errors import GanpipeError, UnavailableError
from .redaction import without_password

TIMEOUT_SECONDS = 5.0


def request(address: str, path: str, body: Any = None) -> bytes:
    """What the API at `address` (the value of PREFECT_API_URL) answers: to a POST of `body` as JSON, else to a GET.

    Raises:
        OSError: nobody answers, or with an error (urllib.error.HTTPError).
        http.client.HTTPException: what answers does not speak HTTP.
        ValueError: `address` is no URL.
    """
    message = urllib.request.Request(
        f"{address.rstrip('/')}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **_authorization()},
    )
    # Loopback never goes through a proxy, whatever the environment says.
    handlers = [urllib.request.ProxyHandler({})] if environment.is_loopback(address) else []
    with urllib.request.build_opener(*handlers).open(message, timeout=TIMEOUT_SECONDS) as response:
        return bytes(response.read())


def _authorization() -> dict[str, str]:
    """As Prefect's own client: a key for its cloud, or the user and password of a server."""
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if user := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}
    return {}


def check_reachable(address: str) -> None:
    """Return if Prefect's API answers at `address`, the value of PREFECT_API_URL.

    Raises:
        UnavailableError: nobody answers.
        GanpipeError: it is no such address, something else answers, or it wants other credentials.
    """
    shown = without_password(address)
    hint = "correct PREFECT_API_URL (http://host:4200/api), or unset it: `make run` then starts a server of its own"
    if not _is_http(address):
        raise GanpipeError(f"PREFECT_API_URL: got {shown!r}, which is no address of a server; {hint}")
    try:
        answer = _version_or_health(address)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise GanpipeError(
                f"Prefect at {shown} refuses access (status {error.code}); set PREFECT_API_AUTH_STRING to the server's "
                "user:password, or PREFECT_API_KEY"
            ) from None
        if error.code >= 500:
            raise UnavailableError(f"Prefect at {shown} answers with status {error.code}; mend it, or {hint}") from None
        raise GanpipeError(f"{shown} answers with status {error.code}, as Prefect's API does not; {hint}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        if isinstance(reason, ssl.SSLError) or not isinstance(error, OSError):
            raise GanpipeError(
                f"{shown} does not answer as a server at such an address does ({reason}); {hint}"
            ) from None
        raise UnavailableError(f"Prefect at {shown} does not answer ({reason}); start it, {hint}") from None
    if not isinstance(answer, str | bool):
        raise GanpipeError(f"{shown} answers, but not as Prefect's API does; {hint}")


def _version_or_health(address: str) -> Any:
    """The server's version, for which it wants credentials; its health where it tells no version, as Prefect's cloud.
    None for what is no JSON."""
    try:
        content = request(address, "/admin/version")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        content = request(address, "/health")
    try:
        return json.loads(content)
    except ValueError:
        return None


def _is_http(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False  # as a port that is no number
