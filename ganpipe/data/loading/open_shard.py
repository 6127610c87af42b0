"""A shard whose samples are read in any order: where each member lies, and its decoded content."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ...errors import GanpipeError
from ...fields import Frames, Picture
from ..images.decoding import UnreadableImage, decode_png_CHW
from ..shards.manifest import Manifest, Shard
from ..shards.tar import find_members


class OpenShard:
    """A shard on this host. Its file is mapped into memory: it can be read even after its name was removed."""

    def __init__(self, path: Path, shard: Shard, manifest: Manifest) -> None:
        """
        Raises:
            GanpipeError: it is no shard of this manifest; names the file.
        """
        self._path, self._manifest = path, manifest
        self._columns = {name: column for column, name in enumerate(manifest.array_fields)}
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:  # mmap raises ValueError for an empty file
                raise GanpipeError(f"{path}: is empty; run `ganpipe ingest` again")
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self._places_NF2 = self._places(shard)
        except BaseException:
            self._content.close()
            raise

    def __enter__(self) -> OpenShard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back, and the file's disk space where its name was removed."""
        self._content.close()

    def decoded(self, name: str, row: int) -> np.ndarray | int | float:
        """A field of a sample, in the field's kind.

        Raises:
            GanpipeError: it is not what the manifest says; names the file and the sample.
        """
        start, stop = self._places_NF2[row, self._columns[name]]
        return self._decode(name, self._content[start:stop], row)

    def _places(self, shard: Shard) -> np.ndarray:
        """Start and stop of each sample's fields in the file, int64, (samples, fields, 2)."""
        from webdataset.tariterators import group_by_keys

        places_NF2, row = np.zeros((shard.num_samples, len(self._columns), 2), np.int64), 0
        try:
            # webdataset groups the members, but does not read them: its tar reader is several times slower than
            # shards/tar.py, and its URL reader runs names such as `pipe:...` as commands and refuses local files if
            # WDS_SECURE is set.
            for sample in group_by_keys(self._members()):
                if row == shard.num_samples:
                    raise GanpipeError(f"{self._path}: more samples than the {row} that the manifest lists")
                for name, column in self._columns.items():
                    suffix = self._manifest.fields[name].member(name)
                    if suffix not in sample:
                        raise GanpipeError(f"{self._path}: sample {sample['__key__']} has no .{suffix} member")
                    places_NF2[row, column] = sample[suffix]
                row += 1
        except ValueError as error:  # webdataset raises it if a member occurs twice
            raise GanpipeError(f"{self._path}: {error.args[0]}; run `ganpipe ingest` again") from None
        if row != shard.num_samples:
            raise GanpipeError(
                f"{self._path}: {row} samples, the manifest says {shard.num_samples}; run `ganpipe ingest` again"
            )
        return places_NF2

    def _members(self) -> Iterator[dict[str, Any]]:
        """Places of the members; a member that is not a field of the manifest is an error."""
        suffixes = {spec.member(name) for name, spec in self._manifest.fields.items()}
        for name, start, stop in find_members(self._path, self._content):
            if name.partition(".")[2] not in suffixes:
                raise GanpipeError(
                    f"{self._path}: its member {name} is not in the manifest's fields; run `ganpipe ingest` again"
                )
            yield {"fname": name, "data": (start, stop), "__url__": str(self._path)}

    def _decode(self, name: str, content: bytes, row: int) -> np.ndarray | int | float:
        spec = self._manifest.fields[name]
        try:
            if isinstance(spec, Picture):
                return decode_png_CHW(content, spec.size, spec.size, spec.channels)
            if isinstance(spec, Frames):
                strip_CHW = decode_png_CHW(content, *spec.file_size, spec.channels)
                return strip_CHW.reshape(spec.channels, spec.num_frames, spec.size, spec.size).swapaxes(0, 1)
            found: np.ndarray | int = spec.parse(content.decode("utf-8"), self._manifest.names.get(name, ()))
            return found
        except UnreadableImage as error:
            reason = f": {error}"
        except ValueError as error:
            reason = f" {error}"
        raise GanpipeError(f"{self._path}: sample {self._key(row)}: .{spec.member(name)}{reason}") from None

    def _key(self, row: int) -> str:
        """The name of a sample, for messages."""
        names = [name for name, _, _ in find_members(self._path, self._content)]
        return list(dict.fromkeys(name.partition(".")[0] for name in names))[row]
