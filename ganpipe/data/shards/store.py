"""A storage for shards that all hosts reach (`data.store`): each shard by its content, so that it is written once."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ...errors import GanpipeError
from ...redaction import expand_variables
from ..access.retrying import reason_of, with_retries

_CHUNK_BYTES = 2**22


class _OtherContent(OSError):
    """The storage returns other bytes than it was given; the next try may go well."""


def url_in(store: str, sha256: str) -> str:
    """Where the shard with this content lies below the URL `store`."""
    return f"{expand_variables(store, 'data.store').rstrip('/')}/{sha256[:2]}/{sha256}.tar"


def _sha256_of(filesystem: Any, path: str) -> str:
    digest = hashlib.sha256()
    with filesystem.open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


class ShardStore:
    """Takes shards from the disk."""

    def __init__(self, url: str) -> None:
        self.url = url

    def require_writable(self) -> None:
        """Return if a file can be written to it.

        Raises:
            GanpipeError: it refuses.
            UnavailableError: it does not answer.
        """
        self._on(f"{self._root}/.ganpipe-can-write", lambda filesystem, path: filesystem.pipe_file(path, b""))

    @property
    def _root(self) -> str:
        return expand_variables(self.url, "data.store").rstrip("/")

    def has(self, sha256: str) -> bool:
        """Whether it returns the shard with this content.

        Raises:
            GanpipeError: it refuses.
            UnavailableError: it does not answer.
        """
        found = False

        def compare(filesystem: Any, there: str) -> None:
            nonlocal found
            filesystem.invalidate_cache()
            found = filesystem.exists(there) and _sha256_of(filesystem, there) == sha256

        self._on(url_in(self.url, sha256), compare)
        return found

    def move_in(self, path: Path, sha256: str) -> bool:
        """Take the shard at `path`, which is removed from there once the storage has returned the same bytes.

        Returns:
            Whether the storage did not have it already.

        Raises:
            GanpipeError: it refuses.
            UnavailableError: it does not answer, or does not keep what it is given.
        """
        num_bytes, is_new = path.stat().st_size, False

        def put(filesystem: Any, there: str) -> None:
            nonlocal is_new
            filesystem.invalidate_cache()
            if not (filesystem.exists(there) and filesystem.info(there)["size"] == num_bytes):
                is_new = True
                if isinstance(filesystem, LocalFileSystem):  # object stores write a whole file or none
                    partial = f"{there}.{uuid.uuid4().hex}.partial"  # another split or host may write the same shard
                    filesystem.put_file(str(path), partial)
                    filesystem.mv(partial, there)
                else:
                    filesystem.put_file(str(path), there)
            if _sha256_of(filesystem, there) != sha256:
                filesystem.rm(there)
                raise _OtherContent(f"it has other bytes than the shard of SHA-256 {sha256[:12]}...")

        self._on(url_in(self.url, sha256), put)
        path.unlink()
        return is_new

    def _on(self, url: str, action: Any) -> None:
        def tried() -> None:
            filesystem, path = fsspec.core.url_to_fs(url)
            if isinstance(filesystem, LocalFileSystem):
                filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
            action(filesystem, path)

        try:
            with_retries(f"{url}: data.store", tried)
        except GanpipeError:
            raise
        except Exception as error:  # whatever the file system's library raises
            raise GanpipeError(f"{url}: data.store cannot be used: {reason_of(error)}") from error
