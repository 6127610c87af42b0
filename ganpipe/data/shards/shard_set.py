"""Where a dataset's shards are: in a folder of the host that ingested them, and by URL for hosts that do not see it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock

from ...errors import GanpipeError, UnavailableError
from ..access.host_cache import host_cache
from ..access.retrying import ResumingReader, StoreFile, reason_of
from .manifest import Manifest, Shard, read_manifest, verify_shard

STORE = "shards"
"""Folder of the host's cache: `<sha256>/<name>` of each shard that was fetched."""
_MAX_ATTEMPTS = 3
_NUM_CONNECTIONS = 8
_CHUNK_BYTES = 2**20


class _WrongContent(UnavailableError):
    """What came is not the shard: damaged on its way, or not there whole yet."""


@dataclass(frozen=True)
class ShardSet:
    """The shards of one dataset, as any host of a cluster finds them.

    Attributes:
        folder: where they lie beside their manifest, on hosts that see it.
        manifest: what is in them; read from the folder where it is not given.
        urls: each shard's address by its name, for hosts that do not see the folder.
        options: of the file system of these URLs (fsspec). No secrets: a host has its own credentials.
    """

    folder: str
    manifest: Manifest | None = None
    urls: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def read_manifest(self) -> Manifest:
        """The manifest.

        Raises:
            GanpipeError: there is none in the folder, or it is of another version.
        """
        return self.manifest or read_manifest(Path(self.folder))

    def is_here(self) -> bool:
        """Whether this host sees the folder, with this very dataset in it."""
        try:
            here = read_manifest(Path(self.folder))
        except GanpipeError:
            return False
        return self.manifest is None or here.digest == self.manifest.digest

    @contextlib.contextmanager
    def on_this_host(self, split: str, cache_root: Path | None = None) -> Iterator[dict[str, Path]]:
        """Each of a split's shards by name -> the folder on this host that it lies in; what is missing is fetched.

        Safe when several processes call it at once: one fetches, the others wait.

        Raises:
            GanpipeError: a shard is nowhere to be had, or is not what the manifest says.
            UnavailableError: the store does not answer.
        """
        shards = self.read_manifest().shards_of(split)
        if self.manifest is None or self.is_here():
            yield {shard.name: Path(self.folder).absolute() for shard in shards}
            return
        store = (cache_root or host_cache()).absolute() / STORE
        store.mkdir(parents=True, exist_ok=True)
        # Held until the caller is done with them: `ganpipe clean` waits for nobody who has it.
        with FileLock(store.with_name(f"{STORE}.lock")):
            with ThreadPoolExecutor(_NUM_CONNECTIONS) as threads:
                folders = list(threads.map(lambda shard: self._require_on_disk(shard, store), shards))
            yield {shard.name: folder for shard, folder in zip(shards, folders, strict=True)}

    def _require_on_disk(self, shard: Shard, store: Path) -> Path:
        """The folder in the store that holds `shard`."""
        folder = store / shard.sha256
        if (folder / shard.name).exists():
            with contextlib.suppress(GanpipeError):  # damaged: fetched again
                return verify_shard(folder, shard).parent
        if shard.name not in self.urls:
            raise GanpipeError(
                f"{shard.name}: this host has no {self.folder} with this dataset, and no DVC remote is known to have "
                "it; run `dvc push`, or share the folder with all hosts"
            )
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
            raise UnavailableError(f"{error}; the shards that came whole are kept") from error
        except (OSError, http.client.HTTPException, ImportError, ValueError) as error:
            raise GanpipeError(
                f"{url}: {shard.name} cannot be fetched into {path.parent}: {reason_of(error)}"
            ) from error
        if digest.hexdigest() != shard.sha256:
            partial.unlink()
            raise _WrongContent(
                f"{url}: what came is not {shard.name}: {num_bytes} bytes of SHA-256 {digest.hexdigest()[:12]}..., the "
                f"manifest says {shard.num_bytes} bytes of {shard.sha256[:12]}..."
            )
        os.replace(partial, path)
