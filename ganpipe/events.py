"""Telling Prefect that something happened (new data, another champion), so that its automations can act on it.

A plain request to Prefect's API, as any HTTP client can send it: nothing of Prefect is imported.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import environment, services

DATA_CHANGED = "ganpipe.data.changed"
ALIAS_MOVED = "ganpipe.alias.moved"
"""The events of this project: docs/operations.md says what is in them."""
TIMEOUT_SECONDS = 5.0


def emit(event: str, resource: Mapping[str, str], payload: Mapping[str, Any], root: Path | None = None) -> bool:
    """Send an event to the Prefect server in use: PREFECT_API_URL, else this checkout's own where it runs.

    Args:
        event: its name.
        resource: what it is about, with at least `prefect.resource.id`.
        payload: facts, as JSON.
        root: the checkout; default `environment.home()`.

    Returns:
        Whether a server took it. No server, or one that does not answer (a warning is logged), never is an error of
        what the event tells of.
    """
    service = services.running("prefect", root or environment.home())
    if service is None or not service.address:
        return False
    body = {
        "id": str(uuid.uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event,
        "resource": dict(resource),
        "payload": dict(payload),
    }
    request = urllib.request.Request(
        f"{service.address.rstrip('/')}/events",
        data=json.dumps([body]).encode(),
        headers={"Content-Type": "application/json", **_authorization()},
        method="POST",
    )
    try:
        with _opener(service.address).open(request, timeout=TIMEOUT_SECONDS):
            return True
    except (urllib.error.URLError, OSError, ValueError) as error:
        logging.getLogger(__name__).warning("Prefect at %s did not take the event %s: %s", service.url, event, error)
        return False


def _authorization() -> dict[str, str]:
    """As Prefect's own client: a key for its cloud, or the user and password of a server."""
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if user := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}
    return {}


def _opener(address: str) -> urllib.request.OpenerDirector:
    # Loopback never goes through a proxy, whatever the environment says.
    handlers = [urllib.request.ProxyHandler({})] if environment.is_loopback(address) else []
    return urllib.request.build_opener(*handlers)
