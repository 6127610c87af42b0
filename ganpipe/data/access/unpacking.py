"""Unpacking of gzip with a limit: a few kilobytes that would become terabytes are refused."""

from __future__ import annotations

import gzip
import sys
from typing import IO

from ...errors import GanpipeError

ALWAYS_ALLOWED_BYTES = 2**26
"""Unpacked size that is allowed for any file, whatever its packed size."""
MAX_RATIO = 200
"""Largest ratio of unpacked to packed bytes beyond that size. MNIST has 5, a tar of short captions 30, zeros 1,000."""


class DecompressionBomb(GanpipeError):
    """A packed file unpacks to far more bytes than real data would."""


class _CountingReader:
    """A stream that knows how many bytes were read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.num_bytes = 0

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self.num_bytes += len(content)
        return content


class LimitedGzipFile(gzip.GzipFile):
    """The content of a gzip stream, read once from its start to its end.

    Raises while it is read:
        DecompressionBomb: the limit is exceeded; names the file.
        OSError, EOFError, zlib.error: the stream is not valid gzip.
    """

    def __init__(self, stream: IO[bytes], name: str, max_bytes: int | None = None) -> None:
        """
        Args:
            name: the file's name in error messages.
            max_bytes: a further limit on the unpacked size.
        """
        self._packed = _CountingReader(stream)
        self._file_name, self._max_bytes, self._num_unpacked = name, max_bytes, 0
        super().__init__(fileobj=self._packed, mode="rb")  # type: ignore[call-overload]

    def read(self, size: int | None = -1) -> bytes:
        """Like `read` of a file. It reads 1 MiB at a time, so that a bomb is refused before it fills the memory."""
        parts, missing = [], size if size is not None and size >= 0 else sys.maxsize
        while missing and (part := super().read(min(missing, 2**20))):
            self._count(len(part))
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _count(self, num_bytes: int) -> None:
        self._num_unpacked += num_bytes
        allowed = max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * self._packed.num_bytes)
        allowed = allowed if self._max_bytes is None else min(allowed, self._max_bytes)
        if self._num_unpacked > allowed:
            raise DecompressionBomb(
                f"{self._file_name}: {self._packed.num_bytes:,} packed bytes become more than {allowed:,}; real data "
                "does not: unpack the file yourself if you trust it"
            )
