"""The server's process: socket, log, background threads, and a shutdown that finishes the requests under way."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import uvicorn

from ..environment import is_loopback
from ..errors import GanpipeError
from ..tracking.connection import prepare_client
from ..tracking.runs import Tracker
from .app import Page, make_app
from .batching import Batcher
from .follower import Follower, Source
from .limits import RateLimit
from .uploads import Uploads

logger = logging.getLogger("ganpipe.serving")

_MAX_CONNECTIONS = 1000
"""Open connections, idle ones included; uvicorn refuses more. Below the usual limit on a process's open files."""


@dataclass(frozen=True)
class ServeSettings:
    """How the page is served. The options of `ganpipe serve` have the same names; their help says more.

    Attributes:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        hosts: further host names under which the page is reached.
        poll_seconds: time between two requests to MLflow.
        max_images: images that a request may ask for.
        rate, burst: images per second, and images at once, per client.
        queue: images that may wait.
        grace_seconds: time for the requests under way at SIGTERM.
        max_upload_bytes, max_upload_pixels: size of a picture that a client sends.

    Raises:
        GanpipeError: a value is too small.
    """

    model: str
    host: str = "127.0.0.1"
    port: int = 8090
    hosts: Sequence[str] = ()
    device: str = "auto"
    poll_seconds: float = 5.0
    max_images: int = 64
    rate: float = 100.0
    burst: int = 1000
    queue: int = 2048
    grace_seconds: int = 30
    max_upload_bytes: int = 2**24
    max_upload_pixels: int = 2**25

    def __post_init__(self) -> None:
        low = {"poll_seconds": 0.1, "max_images": 1, "rate": 0.01, "burst": self.max_images, "queue": self.max_images}
        low |= {"max_upload_bytes": 1, "max_upload_pixels": 1}
        for name, least in low.items():
            if not getattr(self, name) >= least:
                flag, value = name.replace("_", "-"), getattr(self, name)
                raise GanpipeError(f"--{flag}: got {value:g}, expected at least {least:g}")


def run(settings: ServeSettings, tracker: Tracker) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        GanpipeError: the address is in use, or the registry has no such model.
        KeyboardInterrupt: Ctrl-C, after the shutdown.
    """
    _log_to_stderr()
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    prepare_client()
    follower = Follower(tracker, Source.of(settings.model), settings.poll_seconds, settings.device)
    listener = _listen(settings.host, settings.port)
    batcher = Batcher(settings.queue)
    uploads = Uploads(settings.max_upload_bytes, settings.max_upload_pixels)
    page = Page(follower, batcher, RateLimit(settings.rate, settings.burst), settings.max_images, uploads)
    config = uvicorn.Config(
        make_app(page, _hosts(settings)),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # with them, a client could pretend to have another address
        limit_concurrency=_MAX_CONNECTIONS,
        h11_max_incomplete_event_size=16 * 1024,
        timeout_graceful_shutdown=settings.grace_seconds,
    )
    # After its shutdown, uvicorn raises the signal again. This handler ignores it, so that the exit code is 0.
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        follower.start()
        batcher.start()
        where = f"http://{settings.host}:{listener.getsockname()[1]}"
        logger.info("%s shows %s", where, follower.source.uri)
        if not is_loopback(where):
            logger.warning("%s is open to the network, and there is no login", where)
        uvicorn.Server(config).run(sockets=[listener])
        batcher.stop()
        logger.info("stopped")
    finally:
        follower.stop()
        listener.close()
        signal.signal(signal.SIGTERM, before)


def _hosts(settings: ServeSettings) -> set[str]:
    """The host names that are accepted; empty for all."""
    named = {name.lower() for name in settings.hosts}
    if is_loopback(settings.host) or settings.host == "localhost":
        named |= {"localhost", "127.0.0.1", "[::1]"}
    return named


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GanpipeError(f"--host {host} --port {port}: {reason}; choose another") from None


def _log_to_stderr() -> None:
    """One line per event; of uvicorn's own messages, only errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (("ganpipe.serving", logging.INFO), ("uvicorn.error", logging.ERROR)):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(level)
