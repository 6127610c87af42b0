"""What lies elsewhere: asked for again where a network or server failed for a moment, read on where it was cut."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import io
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import fsspec

from ...errors import GanpipeError, UnavailableError

ATTEMPTS = 5
FIRST_WAIT_SECONDS = 1.0
"""Doubled after each failure: 15 s of waiting in all, before the stage ends and Prefect waits for longer."""
MOST_WAIT_SECONDS = 60.0
"""A server that asks to be left alone for longer is: the stage ends at once."""
CONNECT_TIMEOUT_SECONDS = 10
_PROGRESS_BYTES = 2**20
"""So much more has to come before attempts are counted anew: who gives little each time is not asked for ever."""
_STRONG_AFTER_SECONDS = 60
_MAYBE_LATER = {408, 425, 429}
_NEVER = {501, 505}
_MISTAKES = (AssertionError, AttributeError, LookupError, MemoryError, TypeError)
_LASTING = (
    *_MISTAKES,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ImportError,
    ValueError,
    NotImplementedError,
    ssl.SSLCertVerificationError,
    http.client.InvalidURL,
    http.client.LineTooLong,
    http.client.UnknownProtocol,
)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
Result = TypeVar("Result")


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment: a network or server that failed, not a refusal."""
    code = _status(error)
    if code is not None:
        return code in _MAYBE_LATER or (code >= 500 and code not in _NEVER)
    if isinstance(error, urllib.error.URLError):
        return isinstance(error.reason, BaseException) and may_pass(error.reason)
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, FileNotFoundError):
        # fsspec's HTTP says so, too, where nobody answers or a server fails; what it made of that is the cause.
        return error.__cause__ is not None and may_pass(error.__cause__)
    return not isinstance(error, _LASTING) and not _is_botocores_answer(error)


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of urllib, aiohttp or gcsfs stands for."""
    for name in ("status", "code"):
        if isinstance(code := getattr(error, name, None), int) and 100 <= code < 600:
            return code
    return None


def _is_botocores_answer(error: BaseException) -> bool:
    """A refusal by an S3 server, or what botocore says before it asks one: no credentials, no region."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as NoConnection

    return isinstance(error, BotoCoreError | ClientError) and not isinstance(error, HTTPClientError | NoConnection)


def _lasting(name: str, error: Exception) -> Exception:
    """An error that another attempt cannot help, as callers know to name it."""
    if isinstance(error, (OSError, http.client.HTTPException, GanpipeError, *_MISTAKES)):
        return error
    return GanpipeError(f"{name}: cannot be read ({reason_of(error)})")


def reason_of(error: BaseException) -> str:
    """The error on one line, as short as it can be said."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    if isinstance(reason, BaseException) and reason is not error:
        return reason_of(reason)
    return " ".join(str(reason).split()) or type(error).__name__


def asked_wait_seconds(error: BaseException) -> float:
    """What a server's Retry-After asks for: seconds, or until a date."""
    headers = getattr(error, "headers", None)
    asked = headers.get("Retry-After") if isinstance(headers, Mapping | http.client.HTTPMessage) else None
    if not asked:
        return 0
    if asked.strip().isdecimal():
        return float(asked)
    with contextlib.suppress(ValueError):  # no date either
        return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - time.time())
    return 0


class Attempts:
    """How often something was tried, and the waits between.

    Attributes:
        end: why there is no further attempt, once there is none.
    """

    def __init__(self) -> None:
        self._number, self._began = 0, time.monotonic()
        self.end = ""

    def again(self, asked_seconds: float) -> bool:
        """Wait before the next attempt; False where there is none.

        Args:
            asked_seconds: for which the server wants to be left alone.
        """
        if not self._number:
            self._began = time.monotonic()
        self._number += 1
        if asked_seconds > MOST_WAIT_SECONDS:
            self.end = f"its server asks to be left alone for {asked_seconds:,.0f} s"
        elif self._number >= ATTEMPTS:
            self.end = f"{self._number} attempts in {self.seconds:.0f} s"
        if self.end:
            return False
        time.sleep(max(asked_seconds, FIRST_WAIT_SECONDS * 2 ** (self._number - 1)))
        return True

    @property
    def seconds(self) -> float:
        """Since the first attempt failed; before that, since this was made."""
        return time.monotonic() - self._began

    def require_another(self, name: str, error: Exception) -> None:
        """`again` after this error of what `name` stands for.

        Raises:
            UnavailableError: there is no further attempt.
        """
        if not self.again(asked_wait_seconds(error)):
            raise UnavailableError(f"{name}: {reason_of(error)}, {self.end}") from error


def persistently(name: str, action: Callable[[], Result]) -> Result:
    """What `action` returns, tried again where it fails for a moment.

    Raises:
        UnavailableError: it failed each time.
        OSError, HTTPException, GanpipeError: another attempt cannot help.
    """
    attempts = Attempts()
    while True:
        try:
            return action()
        except Exception as error:  # whatever a file system's library raises when its server fails
            if not may_pass(error):
                raise _lasting(name, error) from error
            attempts.require_another(name, error)


class ChangedMeanwhile(UnavailableError):
    """A file is not the one any more of which a part was read."""


@dataclass(frozen=True)
class Part:
    """A file from one of its bytes on, as a server gives it.

    Attributes:
        start: the stream's first byte in the file; 0 where the server cannot begin at the one that was asked for.
        num_bytes: of the whole file, where the server says.
        version: what has to be the same for a later part to belong to this one; empty where nothing tells.
    """

    stream: IO[bytes]
    start: int
    num_bytes: int | None
    version: str


class Place(ABC):
    """Where a file lies that is read from afar."""

    @abstractmethod
    def open(self, position: int, version: str) -> Part:
        """The file from `position` on if it is of `version` still, else the whole file as it is now."""


class HttpPlace(Place):
    """A URL of the web. Parts come by Range with If-Range, where the server can and names a version."""

    def __init__(self, request: Callable[[Mapping[str, str]], Any]) -> None:
        """
        Args:
            request: sends a GET with these headers and returns the response.
        """
        self._request = request

    def open(self, position: int, version: str) -> Part:
        wish = {"Range": f"bytes={position}-", "If-Range": version} if position and version else {}
        response = self._request(wish)
        ranged = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range") or "")
        if response.status == 206 and ranged is not None:
            total = None if ranged[2] == "*" else int(ranged[2])
            return Part(response, int(ranged[1]), total, version)
        length = response.headers.get("Content-Length") or ""
        return Part(response, 0, int(length) if length.isdecimal() else None, _version(response.headers))


def _version(headers: Mapping[str, str]) -> str:
    """What `If-Range` may name (RFC 9110, 13.1.5): a strong ETag, or a time of change that is well over."""
    tag, changed = headers.get("ETag") or "", headers.get("Last-Modified") or ""
    if tag and not tag.startswith("W/"):
        return tag
    with contextlib.suppress(TypeError, ValueError):  # no dates
        age = email.utils.parsedate_to_datetime(headers["Date"]) - email.utils.parsedate_to_datetime(changed)
        return changed if age.total_seconds() >= _STRONG_AFTER_SECONDS else ""
    return ""


class StorePlace(Place):
    """A file of a store that fsspec knows."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, path: str) -> None:
        self._filesystem, self._path = filesystem, path

    def open(self, position: int, version: str) -> Part:
        self._filesystem.invalidate_cache()
        about = self._filesystem.info(self._path)
        found = "|".join(str(about[name]) for name in ("ETag", "etag", "LastModified", "mtime") if about.get(name))
        stream = self._filesystem.open(self._path, "rb")
        start = 0
        if position and found and found == version:
            with contextlib.suppress(ValueError):  # fsspec's HTTP cannot seek where the server knows no Range
                start = stream.seek(position)
        return Part(stream, start, about.get("size"), found)


class Resumed(io.RawIOBase):
    """A file from afar, read from its start to its end; a connection that is cut is made again, and goes on there.

    Raises while it is read:
        ChangedMeanwhile: the file is another one now.
        UnavailableError: its server failed each time.
        OSError, HTTPException, GanpipeError: another attempt cannot help.
    """

    def __init__(self, name: str, place: Place, waits_to_begin: bool = True) -> None:
        """
        Args:
            name: what messages call it.
            waits_to_begin: whether a server that does not give the first byte is asked again, too.
        """
        self._name, self._place, self._waits_to_begin = name, place, waits_to_begin
        self._part: Part | None = None
        self._position, self._resumed_at, self._version = 0, 0, ""
        self._num_bytes: int | None = None
        self._digest = hashlib.sha256()
        self._attempts = Attempts()

    @property
    def num_bytes(self) -> int | None:
        """Of the whole file, once the server has said so."""
        return self._num_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                content = self._next(len(buffer))
                break
            except UnavailableError:
                raise
            except Exception as error:  # whatever a file system's library raises when its server fails
                self._drop_part()
                self._wait_after(error)
        buffer[: len(content)] = content
        self._digest.update(content)
        self._position += len(content)
        return len(content)

    def _wait_after(self, error: Exception) -> None:
        if self._position and _status(error) == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise self._changed() from error
        if not may_pass(error) or not (self._position or self._waits_to_begin):
            raise _lasting(self._name, error) from error
        if self._position - self._resumed_at > _PROGRESS_BYTES:
            self._attempts = Attempts()
        self._resumed_at = self._position
        self._attempts.require_another(self._name, error)

    def _next(self, num_bytes: int) -> bytes:
        if self._position == self._num_bytes:
            return b""
        if self._part is None:
            self._part = self._go_on()
        stream = self._part.stream
        # What has come already, where the stream can say: a cut then loses nothing.
        content: bytes = getattr(stream, "read1", stream.read)(num_bytes)
        if not content and self._num_bytes is not None:
            raise ConnectionError(f"the connection ended after {self._position:,} of {self._num_bytes:,} bytes")
        return content

    def _go_on(self) -> Part:
        """The file from where it was read to on."""
        part = self._place.open(self._position, self._version)
        try:
            sizes = [size for size in (part.num_bytes, self._num_bytes) if size is not None]
            if self._position and (len(set(sizes)) > 1 or part.start > self._position):
                raise self._changed()
            if part.start < self._position:
                self._skip(part)
            self._version, self._num_bytes = part.version, max(sizes, default=None)
        except BaseException:
            part.stream.close()
            raise
        return part

    def _skip(self, part: Part) -> None:
        """Past what was read before, which has to be what comes now."""
        if part.start:
            raise self._changed()
        digest, left = hashlib.sha256(), self._position
        while left:
            content = part.stream.read(min(left, _PROGRESS_BYTES))
            if not content:
                raise ConnectionError(f"the connection ended after {self._position - left:,} bytes")
            digest.update(content)
            left -= len(content)
        if digest.digest() != self._digest.digest():
            raise self._changed()

    def _changed(self) -> ChangedMeanwhile:
        return ChangedMeanwhile(f"{self._name}: changed on its server while it was read")

    def _drop_part(self) -> None:
        if self._part is not None:
            self._part.stream.close()
            self._part = None

    def close(self) -> None:
        self._drop_part()
        super().close()
