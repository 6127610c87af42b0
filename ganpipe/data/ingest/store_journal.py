"""What ingest into `data.store` has done so far, noted on this host, so that a killed ingest goes on from there.

Two files beside the notes on earlier ingests: the digests of all samples that were decoded without an error, and the
shards that the store has. They are appended to while an ingest runs, and hold what its dataset consists of when it
ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from ..parallel import progress
from ..shards.store import ShardStore
from .conversion import DIGEST_BYTES, DIGEST_TYPE, KnownDigests, known_digests
from .previous import Layout, NotedShard, keep_newest

_NUM_READ_AT_ONCE = 8


class _StoredShard(NotedShard):
    """A shard that the store has."""

    signature: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The hexadecimal `ShardSignature` of its samples."""


class StoreJournal:
    """The notes on ingests with one key into one store."""

    def __init__(self, folder: Path, key: str, layout: Layout, store: ShardStore) -> None:
        """
        Args:
            folder: of the notes.
            key: of source, settings and code.
            layout: which files a sample has.

        Raises:
            GanpipeError: the store refuses.
            UnavailableError: it does not answer.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{key}-{hashlib.sha256(repr((layout.members, store.url)).encode()).hexdigest()[:16]}"
        self._digests_path, self._shards_path = folder / f"{name}.digests", folder / f"{name}.shards"
        self.known_digests: KnownDigests = _read_digests(self._digests_path)
        self._there = {one.signature: one for one in _still_there(_read_shards(self._shards_path), store)}
        self._digests = self._digests_path.open("ab", buffering=0)
        self._shards = self._shards_path.open("a", buffering=1, encoding="utf-8")
        self._new: dict[str, _StoredShard] = {}

    def note_decoded(self, digest: bytes) -> None:
        """A sample with this digest was decoded without an error."""
        self._digests.write(digest)

    def reuse(self, signature: bytes, path: Path, name: str) -> NotedShard | None:
        """The note on the shard with this signature if the store has it, under its new name; nothing is put at
        `path`."""
        if (found := self._there.get(signature.hex())) is None:
            return None
        self._new[found.signature] = found
        return NotedShard(name=name, **found.model_dump(exclude={"name", "signature"}))

    def note_stored(self, signature: bytes, noted: NotedShard) -> None:
        """The store has this shard now."""
        found = _StoredShard(signature=signature.hex(), **noted.model_dump())
        self._new[found.signature] = found
        self._shards.write(found.model_dump_json() + "\n")

    def finish(self, digests: Iterable[bytes]) -> None:
        """Keep only what the dataset consists of, of which `digests` are all digests."""
        with _replaced(self._digests_path) as partial:
            partial.write_bytes(known_digests(digests).tobytes())
        with _replaced(self._shards_path) as partial:
            partial.write_text("".join(one.model_dump_json() + "\n" for one in self._new.values()), encoding="utf-8")
        keep_newest(self._digests_path.parent, "*.digests")
        keep_newest(self._digests_path.parent, "*.shards")

    def close(self) -> None:
        self._digests.close()
        self._shards.close()


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A path for the new content, which then replaces the old one at once."""
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    os.replace(partial, path)


def _read_digests(path: Path) -> KnownDigests:
    """The digests in the file, which is cut after the last whole digest."""
    with contextlib.suppress(FileNotFoundError):
        os.truncate(path, path.stat().st_size // DIGEST_BYTES * DIGEST_BYTES)
        return np.unique(np.frombuffer(path.read_bytes(), DIGEST_TYPE))
    return known_digests(())


def _read_shards(path: Path) -> list[_StoredShard]:
    """The shards in the file, which is cut after the last whole line."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        os.truncate(path, len(whole))
        for line in whole.splitlines():
            with contextlib.suppress(ValidationError):  # a damaged line costs the work on its shard
                found.append(_StoredShard.model_validate_json(line))
    return found


def _still_there(noted: Sequence[_StoredShard], store: ShardStore) -> list[_StoredShard]:
    """Those that the store returns as they were; many are read at a time."""
    if not noted:  # no progress bar for a first ingest
        return []
    found = []
    with (
        ThreadPoolExecutor(_NUM_READ_AT_ONCE) as threads,
        progress("data.store: shards of an earlier ingest", len(noted), "shard") as bar,
    ):
        for shard, is_there in zip(noted, threads.map(lambda one: store.has(one.sha256), noted), strict=True):
            bar.update()
            if is_there:
                found.append(shard)
    return found
