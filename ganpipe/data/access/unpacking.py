"""gzip that is unpacked only as far as real data goes: a few kilobytes that become terabytes are refused."""

from __future__ import annotations

import gzip
import sys
from typing import IO

from ...errors import GanpipeError

LEAST_BYTES = 2**26
"""So much may come out of any file, whatever its size."""
LARGEST_RATIO = 200
"""Of unpacked to packed bytes, beyond LEAST_BYTES. MNIST's is 5, a tar of small captions has 30, zeros have 1,000."""


class DecompressionBomb(GanpipeError):
    """What comes out of a packed file is out of all proportion to what goes in."""


class _Counted:
    """A stream that knows how many bytes were read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.num_bytes = 0

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self.num_bytes += len(content)
        return content


class Unpacked(gzip.GzipFile):
    """The content of a gzip stream, read once from its start to its end.

    Raises while it is read:
        DecompressionBomb: naming the file.
        OSError, EOFError, zlib.error: it is no sound gzip.
    """

    def __init__(self, stream: IO[bytes], name: str, most_bytes: int | None = None) -> None:
        """
        Args:
            name: how errors call the file.
            most_bytes: refuse to unpack more than this in any case.
        """
        self._packed = _Counted(stream)
        self._called, self._most_bytes, self._num_unpacked = name, most_bytes, 0
        super().__init__(fileobj=self._packed, mode="rb")  # type: ignore[call-overload]

    def read(self, size: int | None = -1) -> bytes:
        """As a file's. A large part comes in small ones, so that it is refused before it has filled the memory."""
        parts, missing = [], size if size is not None and size >= 0 else sys.maxsize
        while missing and (part := super().read(min(missing, 2**20))):
            self._count(len(part))
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _count(self, num_bytes: int) -> None:
        self._num_unpacked += num_bytes
        most = max(LEAST_BYTES, LARGEST_RATIO * self._packed.num_bytes)
        most = most if self._most_bytes is None else min(most, self._most_bytes)
        if self._num_unpacked > most:
            raise DecompressionBomb(
                f"{self._called}: {self._packed.num_bytes:,} packed bytes become more than {most:,}; no real data "
                "does: unpack it yourself if you trust it"
            )
