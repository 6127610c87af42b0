"""Finds the files that the settings of a source name, by pattern, and opens them: at a local path or at a URL."""

from __future__ import annotations

import base64
import glob
import http.client
import io
import re
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import braceexpand
import fsspec

from ...errors import GanpipeError, UnavailableError
from ...redaction import expand_variables
from ..access.retrying import (
    CONNECT_TIMEOUT_SECONDS,
    HttpFile,
    RemoteFile,
    ResumingReader,
    StoreFile,
    reason_of,
    with_retries,
)
from ..access.unpacking import LimitedGzipFile

_GZIP = b"\x1f\x8b"
_MAX_SHARDS = 1_000_000
_MAX_PATTERN_BYTES = 2**28
_MAX_BRACES = 20
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")


@dataclass(frozen=True)
class ForeignFile:
    """A file that others wrote, at a local path or at a URL.

    Attributes:
        url: the path or the URL.
        setting: what names the file, for messages.
    """

    url: str
    setting: str

    @property
    def is_remote(self) -> bool:
        return "://" in self.url

    @property
    def name(self) -> str:
        """The path or URL for messages and manifests, without a password or token that the URL may hold."""
        if not self.is_remote:
            return self.url
        parts = urllib.parse.urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def expand_patterns(patterns: tuple[str, ...], root: Path, source: str, setting: str) -> list[ForeignFile]:
    """The files that patterns name, in their order.

    Args:
        patterns: local paths or URLs; {000..123} and {a,b} are expanded everywhere, * and ? in local paths only.
        root: the folder of the local files.
        source, setting: where the patterns stand: `sources.<source>.<setting>`.

    Raises:
        GanpipeError: no file matches a pattern, or a pattern names a file that does not exist; names the pattern.
    """
    found: list[ForeignFile] = []
    key = f"sources.{source}.{setting}"
    for pattern in patterns:
        for one in _expanded(pattern, key):
            if "://" in one:
                found.append(ForeignFile(one, key))
                continue
            if ".." in Path(one).parts:
                raise GanpipeError(
                    f"{key}: {one!r} leads out of sources.{source}.path; set that to the folder which holds all of them"
                )
            if glob.has_magic(one):
                names = sorted(glob.glob(one, root_dir=root, recursive=True))
                if not names:
                    raise GanpipeError(f"{key}: {one!r} matches no file in {root}")
            else:
                names = [one]
            for name in names:
                if not (root / name).is_file():
                    raise GanpipeError(f"{key}: {root / name}: there is no such file")
                found.append(ForeignFile(str(root / name), key))
    return found


def _expanded(pattern: str, key: str) -> list[str]:
    """The names that a pattern's braces stand for. They are counted first, so that they do not fill the memory.

    Raises:
        GanpipeError: there are too many, or the braces are not valid.
    """
    try:
        count = _num_expanded(re.sub(r"\\.", "__", pattern))
        if not 1 <= count <= _MAX_SHARDS or count * len(pattern) > _MAX_PATTERN_BYTES:
            raise ValueError(f"stands for {count:,} names; expected 1 to {_MAX_SHARDS:,} short ones")
        return list(braceexpand.braceexpand(pattern))
    except (ValueError, RecursionError) as error:
        shown = pattern if len(pattern) < 200 else f"{pattern[:200]}..."
        raise GanpipeError(f"{key}: {shown!r}: {error}") from None


def _num_expanded(pattern: str) -> int:
    """How many names the pattern stands for, as the braceexpand package reads it."""
    count, depth, start = 1, 0, 0
    for position, char in enumerate(pattern):
        depth += (char == "{") - (char == "}")
        if depth > _MAX_BRACES:
            raise ValueError(f"braces are nested more than {_MAX_BRACES} deep")
        if char == "{" and depth == 1:
            start = position + 1
        elif char == "}" and depth == 0:
            inner = pattern[start:position]
            if found := _RANGE.fullmatch(inner):
                count *= 1 + abs(int(found[2]) - int(found[1])) // max(1, int(found[3] or 1))
            else:
                count *= sum(map(_num_expanded, _alternatives(inner)))
    return count


def _alternatives(inner: str) -> list[str]:
    """The texts between the commas of a group of braces; commas inside inner braces do not count."""
    parts, depth = [""], 0
    for char in inner:
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def is_gzipped(file: ForeignFile) -> bool:
    """Whether a local file is gzipped."""
    try:
        with open(file.url, "rb") as opened:
            return opened.read(2) == _GZIP
    except OSError as error:
        raise GanpipeError(f"{file.name}: cannot be read ({error.strerror})") from None


@contextmanager
def open_foreign(file: ForeignFile) -> Iterator[IO[bytes]]:
    """The file's content as a stream, unpacked if it is gzipped."""
    raw: Any = ResumingReader(file.name, _remote_file(file)) if file.is_remote else open(file.url, "rb")  # noqa: SIM115
    with raw:
        buffered = io.BufferedReader(raw, 2**20)
        yield LimitedGzipFile(buffered, file.name) if buffered.peek(2)[:2] == _GZIP else buffered  # type: ignore[misc]


def _is_web(file: ForeignFile) -> bool:
    return file.url.startswith(("http://", "https://"))


def _remote_file(file: ForeignFile) -> RemoteFile:
    if _is_web(file):
        return HttpFile(lambda headers: _request(file, "GET", dict(headers)))
    return StoreFile(filesystem_of(file), expand_variables(file.url, file.setting))


def _request(file: ForeignFile, method: str, headers: dict[str, str] | None = None) -> Any:
    """The answer to a request for a file at an http(s) URL. User and password in the URL are sent in a header."""
    parts = urllib.parse.urlsplit(expand_variables(file.url, file.setting))
    user_info, _, host = parts.netloc.rpartition("@")
    url = urllib.parse.urlunsplit(parts._replace(netloc=host))
    request = urllib.request.Request(url, headers=headers or {}, method=method)
    if user_info:
        encoded = base64.b64encode(urllib.parse.unquote(user_info).encode()).decode()
        # Not sent to another host if the server redirects.
        request.add_unredirected_header("Authorization", f"Basic {encoded}")
    return urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_SECONDS)


def filesystem_of(file: ForeignFile) -> fsspec.AbstractFileSystem:
    """The file system of a URL that is not http(s).

    Raises:
        GanpipeError: its driver is not installed.
    """
    scheme = file.url.split("://")[0]
    try:
        filesystem: fsspec.AbstractFileSystem = fsspec.filesystem(scheme)
    except (ImportError, ValueError) as error:
        raise GanpipeError(f"{file.name}: no driver for {scheme}:// is installed ({error})") from None
    return filesystem


@contextmanager
def naming_errors(file: ForeignFile, place: Callable[[], str], advice: str) -> Iterator[None]:
    """Turns errors of disk and network into one line that names the file and how far it was read.

    Args:
        place: says how far the file was read, such as "after 0001.png".
        advice: what to do if the server does not answer.

    Raises:
        UnavailableError: the server failed temporarily.
        GanpipeError: any other error.
    """
    try:
        yield
    except urllib.error.HTTPError as error:
        raise GanpipeError(f"{file.name}: {reason_of(error)}") from None
    except (OSError, EOFError, zlib.error, http.client.HTTPException) as error:
        raise GanpipeError(f"{file.name}: cannot be read {place()} ({reason_of(error)})") from None
    except UnavailableError as error:
        reason = str(error).removeprefix(f"{file.name}: ")
        raise UnavailableError(f"{file.name}: cannot be read {place()} ({reason}); {advice}") from None


def change_marks(file: ForeignFile) -> list[str | int]:
    """Values that change when the file changes: URL, size and modification time, or ETag and dates from its server.

    Raises:
        GanpipeError: the file does not exist.
        UnavailableError: its server failed.
    """
    with naming_errors(file, lambda: "at all", "try again later"):
        if not file.is_remote:
            status = Path(file.url).stat()
            return [file.url, status.st_size, status.st_mtime_ns]
        if _is_web(file):
            with with_retries(file.name, lambda: _request(file, "HEAD")) as answer:
                marks = (answer.headers.get(name) or "" for name in ("ETag", "Last-Modified", "Content-Length"))
                return [file.url, *marks]
        filesystem = filesystem_of(file)
        filesystem.invalidate_cache()
        about = with_retries(file.name, lambda: filesystem.info(expand_variables(file.url, file.setting)))
        return [file.url, *(str(about.get(name, "")) for name in ("ETag", "etag", "LastModified", "mtime", "size"))]
