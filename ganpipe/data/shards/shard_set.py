"""Where a dataset's shards are: in a folder, and at URLs for hosts of a cluster that do not see this folder."""

from __future__ import annotations

import contextlib
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

STORE = "shards"
"""Folder in the host's cache for fetched shards, each as `<sha256>/<name>`."""
_MAX_ATTEMPTS = 3
Read = Literal["auto", "cache", "stream"]
_NUM_CONNECTIONS = 8
_CHUNK_BYTES = 2**20


def lock_of(store: Path, sha256: str) -> Path:
    """Of whoever fetches this shard into the store. Many shards have the same, because the files of locks stay."""
    return store / f".{sha256[:2]}.lock"


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
    """

    folder: str
    manifest: Manifest | None = None
    urls: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    read: Read = "auto"

    def read_manifest(self) -> Manifest:
        """The dataset's manifest.

        Raises:
            GanpipeError: it is missing in the folder, or is not a manifest of a known format.
        """
        return self.manifest or read_manifest(Path(self.folder))

    def is_here(self) -> bool:
        """Whether this host sees the folder, and the folder holds this dataset."""
        try:
            here = read_manifest(Path(self.folder))
        except GanpipeError:
            return False
        return self.manifest is None or here.digest == self.manifest.digest

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
        if self.manifest is None or self.is_here():
            yield {shard.name: Path(self.folder).absolute() for shard in shards}
            return
        store = (cache_root or host_cache()).absolute() / STORE
        store.mkdir(parents=True, exist_ok=True)
        # Held until the caller is done with the shards, so that `ganpipe clean` does not remove them.
        with FileLock(store.with_name(f"{STORE}.lock")):
            with ThreadPoolExecutor(_NUM_CONNECTIONS) as threads:
                folders = list(threads.map(lambda shard: self.fetched(shard, store), shards))
            yield {shard.name: folder for shard, folder in zip(shards, folders, strict=True)}

    def fetched(self, shard: Shard, store: Path, make_room: Callable[[], None] | None = None) -> Path:
        """The folder in `store` that holds `shard`, which is fetched if it is not there.

        Args:
            make_room: called before it is fetched.

        Raises:
            GanpipeError: the shard is not found anywhere, or differs from the manifest.
            UnavailableError: the storage does not answer.
        """
        with FileLock(lock_of(store, shard.sha256)):
            return self._require_on_disk(shard, store, make_room)

    def _require_on_disk(self, shard: Shard, store: Path, make_room: Callable[[], None] | None) -> Path:
        folder = store / shard.sha256
        if (folder / shard.name).exists():
            with contextlib.suppress(GanpipeError):  # if it is damaged, it is fetched again
                return verify_shard(folder, shard).parent
        if shard.name not in self.urls:
            raise GanpipeError(
                f"{shard.name}: this host has no {self.folder} with this dataset, and no DVC remote is known to have "
                "it; run `dvc push`, or share the folder with all hosts"
            )
        if make_room is not None:
            make_room()
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                self._fetch(shard, folder / shard.name)
                break
            except _WrongContent:
                if attempt == _MAX_ATTEMPTS:
                    raise
        return folder

    def _fetch(self, shard: Shard, path: Path) -> None:
        url = self.urls[shard.name]
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
            raise GanpipeError(
                f"{url}: {shard.name} is not in the DVC remote; run `dvc push` where the shards are"
            ) from None
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
