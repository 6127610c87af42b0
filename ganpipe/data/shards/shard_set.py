"""Where a dataset's shards are: in a folder, or at URLs for hosts of a cluster that do not see this folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import fsspec
from filelock import FileLock

from ...errors import GanpipeError, UnavailableError
from ..access.host_cache import host_cache
from ..access.retrying import ResumingReader, StoreFile, reason_of
from .manifest import Manifest, Shard, read_manifest, verify_shard
from .room import Room
from .store import url_in

_MAX_ATTEMPTS = 3
_NUM_CONNECTIONS = 8
_CHUNK_BYTES = 2**20
Read = Literal["auto", "cache", "stream"]


class _WrongContent(UnavailableError):
    """The content that was fetched is not the shard: it was damaged on its way, or its upload is not complete yet."""


@dataclass(frozen=True)
class ShardSet:
    """The shards of one dataset, as any host of a cluster finds them.

    Attributes:
        folder: where shards and manifest lie, on hosts that see this folder.
        manifest: the dataset's manifest; read from the folder when None.
        urls: shard's name -> its URL, for hosts that do not see the folder.
        options: arguments of the fsspec file system of these URLs, without secrets: a host has its own credentials.
        read: how hosts read the shards: see `data.read`.
        store: the URL below which the shards lie by their content, and not in the folder: see `data.store`.
    """

    folder: str
    manifest: Manifest | None = None
    urls: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    read: Read = "auto"
    store: str | None = None

    def read_manifest(self) -> Manifest:
        """The dataset's manifest.

        Raises:
            GanpipeError: it is missing in the folder, or is not a manifest of a known format.
        """
        return self.manifest or read_manifest(Path(self.folder))

    def is_here(self) -> bool:
        """Whether this host sees the folder, and the folder holds this dataset with its shards."""
        if self.store is not None:
            return False
        try:
            here = read_manifest(Path(self.folder))
        except GanpipeError:
            return False
        return self.manifest is None or here.digest == self.manifest.digest

    def is_in_folder(self) -> bool:
        """Whether the shards are read from the folder: `is_here`, or there is no other place."""
        return (self.manifest is None and self.store is None) or self.is_here()

    def finder(self, cache_root: Path | None = None) -> Callable[[Shard], Path]:
        """Shard -> the folder on this host with it, verified; it is fetched if it is not here."""
        if self.is_in_folder():
            return lambda shard: verify_shard(Path(self.folder).absolute(), shard).parent
        room = Room((cache_root or host_cache()).absolute())
        return lambda shard: self.fetched(shard, room)

    def url_of(self, shard: Shard) -> str | None:
        """Where a host fetches it that does not see the folder; None if no place is known."""
        return self.urls.get(shard.name) if self.store is None else url_in(self.store, shard.sha256)

    @contextlib.contextmanager
    def on_this_host(self, split: str, cache_root: Path | None = None) -> Iterator[dict[str, Path]]:
        """The folder on this host of each shard of a split, by the shard's name; missing shards are fetched.

        Several processes may enter it at the same time: one fetches, the others wait.

        Args:
            cache_root: the folder of the cache; `host_cache()` when None.

        Raises:
            GanpipeError: a shard is not found anywhere, or differs from the manifest.
            UnavailableError: the storage does not answer.
        """
        shards = self.read_manifest().shards_of(split)
        if self.is_in_folder():
            yield {shard.name: Path(self.folder).absolute() for shard in shards}
            return
        room, all_of_them = Room((cache_root or host_cache()).absolute()), frozenset(shard.sha256 for shard in shards)
        room.folder.mkdir(parents=True, exist_ok=True)
        # Held until the caller is done with the shards, so that `ganpipe clean` does not remove them.
        with FileLock(room.folder.with_name(f"{room.folder.name}.lock")):
            with ThreadPoolExecutor(_NUM_CONNECTIONS) as threads:
                folders = list(threads.map(lambda shard: self.fetched(shard, room, all_of_them), shards))
            yield {shard.name: folder for shard, folder in zip(shards, folders, strict=True)}

    def fetched(self, shard: Shard, room: Room, kept: frozenset[str] = frozenset()) -> Path:
        """The folder in `room` with this shard, which is fetched if it is not there.

        Args:
            kept: contents that may not be removed to make room.

        Raises:
            GanpipeError: the shard is not found anywhere, or differs from the manifest.
            UnavailableError: the storage does not answer.
        """
        return room.holding(shard, functools.partial(self._require_on_disk, shard), kept)

    def _require_on_disk(self, shard: Shard, folder: Path, make_room: Callable[[], None]) -> None:
        if (folder / shard.name).exists():
            with contextlib.suppress(GanpipeError):  # if it is damaged, it is fetched again
                verify_shard(folder, shard)
                return
        if (url := self.url_of(shard)) is None:
            raise GanpipeError(
                f"{shard.name}: this host has no {self.folder} with this dataset, and no DVC remote is known to have "
                "it; run `dvc push`, or share the folder with all hosts"
            )
        make_room()
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                return self._fetch(shard, url, folder / shard.name)
            except _WrongContent:
                if attempt == _MAX_ATTEMPTS:
                    raise

    def _fetch(self, shard: Shard, url: str, path: Path) -> None:
        partial, digest, num_bytes = path.with_name(f".{path.name}.partial"), hashlib.sha256(), 0
        try:
            remote_file = StoreFile(*fsspec.core.url_to_fs(url, **self.options))
            with (
                ResumingReader(f"{url}: {shard.name} cannot be fetched", remote_file) as source,
                partial.open("wb") as file,
            ):
                while num_bytes <= shard.num_bytes and (chunk := source.read(_CHUNK_BYTES)):
                    file.write(chunk)
                    digest.update(chunk)
                    num_bytes += len(chunk)
        except FileNotFoundError:
            missing = (
                "is not in the DVC remote; run `dvc push` where the shards are"
                if self.store is None
                else "is not in data.store; run `ganpipe ingest` again, which makes what is missing"
            )
            raise GanpipeError(f"{url}: {shard.name} {missing}") from None
        except UnavailableError as error:
            raise UnavailableError(f"{error}; shards that were fetched completely are kept") from error
        except (OSError, http.client.HTTPException, ImportError, ValueError) as error:
            raise GanpipeError(
                f"{url}: {shard.name} cannot be fetched into {path.parent}: {reason_of(error)}"
            ) from error
        if digest.hexdigest() != shard.sha256:
            partial.unlink()
            raise _WrongContent(
                f"{url}: the content is not {shard.name}: {num_bytes} bytes of SHA-256 {digest.hexdigest()[:12]}..., "
                f"the manifest says {shard.num_bytes} bytes of {shard.sha256[:12]}..."
            )
        os.replace(partial, path)
