"""Remote files, read with retries: a request that fails temporarily is repeated, a cut connection is resumed."""

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

MAX_ATTEMPTS = 5
FIRST_WAIT_SECONDS = 1.0
"""Doubled after each failure, so that all waits together take 15 s. Then the stage ends, and Prefect waits longer."""
MAX_WAIT_SECONDS = 60.0
"""If a server asks for a longer wait (Retry-After), the stage ends at once."""
CONNECT_TIMEOUT_SECONDS = 10
_PROGRESS_BYTES = 2**20
"""The attempts are counted anew after this many further bytes. With less, a server that sends a few bytes per attempt
would be asked for ever."""
_STRONG_AFTER_SECONDS = 60
"""Age from which a Last-Modified date identifies a version of a file (RFC 7232, section 2.2.2)."""
_TEMPORARY_STATUSES = {408, 425, 429}
_PERMANENT_STATUSES = {501, 505}
_PROGRAMMING_ERRORS = (AssertionError, AttributeError, LookupError, MemoryError, TypeError)
_PERMANENT = (
    *_PROGRAMMING_ERRORS,
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


def is_temporary(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later: the network or the server failed, it was not a refusal."""
    code = _status(error)
    if code is not None:
        return code in _TEMPORARY_STATUSES or (code >= 500 and code not in _PERMANENT_STATUSES)
    if isinstance(error, urllib.error.URLError):
        return isinstance(error.reason, BaseException) and is_temporary(error.reason)
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, FileNotFoundError):
        # fsspec's HTTP raises it also if no server answers or the server fails; its cause is the real error.
        return error.__cause__ is not None and is_temporary(error.__cause__)
    return not isinstance(error, _PERMANENT) and not _is_botocore_refusal(error)


def _status(error: BaseException) -> int | None:
    """The HTTP status in an error of urllib, aiohttp or gcsfs; None for any other error."""
    for name in ("status", "code"):
        if isinstance(code := getattr(error, name, None), int) and 100 <= code < 600:
            return code
    return None


def _is_botocore_refusal(error: BaseException) -> bool:
    """Whether an S3 server refused, or botocore sent no request at all because credentials or region are missing."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as NoConnection

    return isinstance(error, BotoCoreError | ClientError) and not isinstance(error, HTTPClientError | NoConnection)


def _as_known_error(name: str, error: Exception) -> Exception:
    """A permanent error as one of the types that callers handle; GanpipeError if it is of another type."""
    if isinstance(error, (OSError, http.client.HTTPException, GanpipeError, *_PROGRAMMING_ERRORS)):
        return error
    return GanpipeError(f"{name}: cannot be read ({reason_of(error)})")


def reason_of(error: BaseException) -> str:
    """A short description of the error, on one line."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    if isinstance(reason, BaseException) and reason is not error:
        return reason_of(reason)
    return " ".join(str(reason).split()) or type(error).__name__


def retry_after_seconds(error: BaseException) -> float:
    """Seconds to wait according to the Retry-After header (seconds or a date) of the server's answer; else 0."""
    headers = getattr(error, "headers", None)
    asked = headers.get("Retry-After") if isinstance(headers, Mapping | http.client.HTTPMessage) else None
    if not asked:
        return 0
    if asked.strip().isdecimal():
        return float(asked)
    with contextlib.suppress(ValueError):  # neither seconds nor a date
        return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - time.time())
    return 0


class Attempts:
    """Counts attempts, and waits between them.

    Attributes:
        end: why there is no further attempt; empty as long as there may be another.
    """

    def __init__(self) -> None:
        self._number, self._began = 0, time.monotonic()
        self.end = ""

    def wait_for_next(self, wait_seconds: float) -> bool:
        """Wait, and return True if there is to be another attempt; else return False at once.

        Args:
            wait_seconds: the least time to wait, as the server asked.
        """
        if not self._number:
            self._began = time.monotonic()
        self._number += 1
        if wait_seconds > MAX_WAIT_SECONDS:
            self.end = f"its server asks to be left alone for {wait_seconds:,.0f} s"
        elif self._number >= MAX_ATTEMPTS:
            self.end = f"{self._number} attempts in {self.seconds:.0f} s"
        if self.end:
            return False
        time.sleep(max(wait_seconds, FIRST_WAIT_SECONDS * 2 ** (self._number - 1)))
        return True

    @property
    def seconds(self) -> float:
        """Time since the first attempt failed; before that, since this object was made."""
        return time.monotonic() - self._began

    def wait_or_give_up(self, name: str, error: Exception) -> None:
        """Wait before the next attempt, after `error`.

        Args:
            name: the file's name in the error message.

        Raises:
            UnavailableError: there is no further attempt.
        """
        if not self.wait_for_next(retry_after_seconds(error)):
            raise UnavailableError(f"{name}: {reason_of(error)}, {self.end}") from error


def with_retries(name: str, action: Callable[[], Result]) -> Result:
    """The result of `action`, which is called again after temporary errors.

    Args:
        name: the file's name in error messages.

    Raises:
        UnavailableError: every attempt failed.
        OSError, HTTPException, GanpipeError: the error is permanent.
    """
    attempts = Attempts()
    while True:
        try:
            return action()
        except Exception as error:  # whatever a file system's library raises when its server fails
            if not is_temporary(error):
                raise _as_known_error(name, error) from error
            attempts.wait_or_give_up(name, error)


class ChangedMeanwhile(UnavailableError):
    """A remote file changed while it was read."""


@dataclass(frozen=True)
class OpenedFile:
    """An answer of a server: a file from some position on.

    Attributes:
        stream: the content.
        start: position of the stream's first byte in the file; 0 if the server cannot begin at the requested position.
        num_bytes: size of the whole file; None if the server does not tell.
        version: identifies the file's version (an ETag or a date); empty if the server does not tell.
    """

    stream: IO[bytes]
    start: int
    num_bytes: int | None
    version: str


class RemoteFile(ABC):
    """A file on a server."""

    @abstractmethod
    def open(self, position: int, version: str) -> OpenedFile:
        """The file from `position` on if it still has this `version`, else the whole file in its present version."""


class HttpFile(RemoteFile):
    """A file at an HTTP(S) URL. It is resumed by `Range` with `If-Range`, if the server supports them."""

    def __init__(self, request: Callable[[Mapping[str, str]], Any]) -> None:
        """
        Args:
            request: sends a GET with the given headers and returns the response.
        """
        self._request = request

    def open(self, position: int, version: str) -> OpenedFile:
        wish = {"Range": f"bytes={position}-", "If-Range": version} if position and version else {}
        response = self._request(wish)
        ranged = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range") or "")
        if response.status == 206 and ranged is not None:
            total = None if ranged[2] == "*" else int(ranged[2])
            return OpenedFile(response, int(ranged[1]), total, version)
        length = response.headers.get("Content-Length") or ""
        return OpenedFile(response, 0, int(length) if length.isdecimal() else None, _version(response.headers))


def _version(headers: Mapping[str, str]) -> str:
    """The version for `If-Range` (RFC 9110, section 13.1.5): a strong ETag, or a date long enough ago; else ""."""
    tag, changed = headers.get("ETag") or "", headers.get("Last-Modified") or ""
    if tag and not tag.startswith("W/"):
        return tag
    with contextlib.suppress(TypeError, ValueError):  # a date is missing or not valid
        age = email.utils.parsedate_to_datetime(headers["Date"]) - email.utils.parsedate_to_datetime(changed)
        return changed if age.total_seconds() >= _STRONG_AFTER_SECONDS else ""
    return ""


class StoreFile(RemoteFile):
    """A file in any storage that fsspec opens."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, path: str) -> None:
        self._filesystem, self._path = filesystem, path

    def open(self, position: int, version: str) -> OpenedFile:
        self._filesystem.invalidate_cache()
        about = self._filesystem.info(self._path)
        found = "|".join(str(about[name]) for name in ("ETag", "etag", "LastModified", "mtime") if about.get(name))
        stream = self._filesystem.open(self._path, "rb")
        start = 0
        if position and found and found == version:
            with contextlib.suppress(ValueError):  # fsspec's HTTP cannot seek if the server does not support Range
                start = stream.seek(position)
        return OpenedFile(stream, start, about.get("size"), found)


class ResumingReader(io.RawIOBase):
    """A remote file, read once from start to end. After a cut connection it reconnects and continues at the same byte.

    Raises while it is read:
        ChangedMeanwhile: the file has changed since the first byte was read.
        UnavailableError: every attempt failed.
        OSError, HTTPException, GanpipeError: the error is permanent.
    """

    def __init__(self, name: str, remote_file: RemoteFile, retries_first_byte: bool = True) -> None:
        """
        Args:
            name: the file's name in error messages.
            retries_first_byte: whether to retry also if the server has not sent any byte yet.
        """
        self._name, self._file, self._retries_first_byte = name, remote_file, retries_first_byte
        self._opened: OpenedFile | None = None
        self._position, self._resumed_at, self._version = 0, 0, ""
        self._num_bytes: int | None = None
        self._digest = hashlib.sha256()
        self._attempts = Attempts()

    @property
    def num_bytes(self) -> int | None:
        """Size of the whole file; None until the server has told it."""
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
                self._close_stream()
                self._wait_after_failure(error)
        buffer[: len(content)] = content
        self._digest.update(content)
        self._position += len(content)
        return len(content)

    def _wait_after_failure(self, error: Exception) -> None:
        if self._position and _status(error) == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise self._changed() from error
        if not is_temporary(error) or not (self._position or self._retries_first_byte):
            raise _as_known_error(self._name, error) from error
        if self._position - self._resumed_at > _PROGRESS_BYTES:
            self._attempts = Attempts()
        self._resumed_at = self._position
        self._attempts.wait_or_give_up(self._name, error)

    def _next(self, num_bytes: int) -> bytes:
        if self._position == self._num_bytes:
            return b""
        if self._opened is None:
            self._opened = self._resume()
        stream = self._opened.stream
        # `read1` returns the bytes that have arrived, so that a cut loses none of them.
        content: bytes = getattr(stream, "read1", stream.read)(num_bytes)
        if not content and self._num_bytes is not None:
            raise ConnectionError(f"the connection ended after {self._position:,} of {self._num_bytes:,} bytes")
        return content

    def _resume(self) -> OpenedFile:
        """Open the file again at the present position."""
        part = self._file.open(self._position, self._version)
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

    def _skip(self, part: OpenedFile) -> None:
        """Read up to the present position again, and require that these bytes are those that were read before."""
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

    def _close_stream(self) -> None:
        if self._opened is not None:
            self._opened.stream.close()
            self._opened = None

    def close(self) -> None:
        self._close_stream()
        super().close()
