"""Telling Prefect that something happened (new data, another champion, an alarm), so that automations can act on it.

Nothing of Prefect is imported.
"""

from __future__ import annotations

import http.client
import logging
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import environment, prefect_api, services

DATA_CHANGED = "ganpipe.data.changed"
ALIAS_MOVED = "ganpipe.alias.moved"
ALARM = "ganpipe.training.alarm"
"""The events of this project: docs/operations.md says what is in them."""
ALARM_MARK = "alarm after"
"""How the line of an alarm is known among all that a training prints."""


def emit(event: str, resource: Mapping[str, str], payload: Mapping[str, Any], root: Path | None = None) -> bool:
    """Send an event to the Prefect server in use: PREFECT_API_URL, else this checkout's own where it runs.

    Args:
        event: its name.
        resource: what it is about, with at least `prefect.resource.id`.
        payload: facts, as JSON.
        root: the checkout; default `environment.home()`.

    Returns:
        Whether a server took it. Without a server, or where it does not answer (a warning is logged), the caller goes
        on: this is no error of what it did.
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
    try:
        prefect_api.request(service.address, "/events", [body])
        return True
    except (OSError, http.client.HTTPException, ValueError) as error:
        logging.getLogger(__name__).warning("Prefect at %s did not take the event %s: %s", service.url, event, error)
        return False
