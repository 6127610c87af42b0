"""A writer of plain USTAR files for the shards, and a strict reader that accepts only such files.

A shard of small images is mostly tar headers, and handling those with `tarfile` takes several times longer than
decoding the images. Any tar program and any WebDataset client reads these files. The reader here accepts regular files
only (no links, devices or extensions), and never needs more memory than the shard's size.
"""

from __future__ import annotations

import mmap
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from ...errors import GanpipeError

_BLOCK = tarfile.BLOCKSIZE
_EMPTY = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
_BEFORE_SIZE, _BETWEEN, _AFTER_CHECKSUM = _EMPTY[100:124], _EMPTY[135:148], _EMPTY[156:]
_NAME = re.compile(rb"[0-9A-Za-z_-][0-9A-Za-z_.-]*")  # no folder, nothing hidden
_MAX_MEMBER_BYTES = 2**28  # five times the largest image (4096 x 4096 x 3), not compressed
_CHECKSUM = sum(_BEFORE_SIZE) + sum(_BETWEEN) + sum(_AFTER_CHECKSUM) + 8 * ord(" ")


def tar_header(name: str, num_bytes: int) -> bytes:
    """The header of a regular file of mode 644: no times, no owners, so the same content gives the same bytes.

    Raises:
        ValueError: the name is longer than 100 bytes, or the file larger than 8 GiB.
    """
    encoded, size = name.encode(), b"%011o" % num_bytes
    if len(encoded) > 100 or len(size) > 11:
        raise ValueError(f"{name} of {num_bytes} bytes does not fit a USTAR header")
    checksum = b"%06o\0 " % (_CHECKSUM + sum(encoded) + sum(size))
    return b"".join((encoded.ljust(100, b"\0"), _BEFORE_SIZE, size, _BETWEEN, checksum, _AFTER_CHECKSUM))


def tar_member(name: str, content: bytes) -> bytes:
    """A member: its header, its content, and zeros up to a whole block."""
    return b"".join((tar_header(name, len(content)), content, bytes(-len(content) % _BLOCK)))


def tar_ending(num_bytes: int) -> bytes:
    """The end of a tar after `num_bytes` of members: two empty blocks, and zeros up to a whole record."""
    return bytes(2 * _BLOCK + -(num_bytes + 2 * _BLOCK) % tarfile.RECORDSIZE)


def find_members(path: Path, content: mmap.mmap) -> Iterator[tuple[str, int, int]]:
    """(name, start, stop) of each member of a shard, in order; its content is `content[start:stop]`.

    Args:
        path: the shard's path, for error messages.
        content: the whole shard.

    Raises:
        GanpipeError: it is not such a tar; names the file.
    """
    position, end = 0, len(content)
    while position + _BLOCK <= end:
        header = content[position : position + _BLOCK]
        if not any(header):
            return
        name = header[:100].rstrip(b"\0")
        size = header[124:135]
        plain = header[257:262] == b"ustar" and header[156:157] == b"0" and not any(header[345:500])
        if not (plain and _NAME.fullmatch(name) and size.isdigit() and not set(size) & set(b"89")):
            raise GanpipeError(f"{path}: byte {position} is not a plain USTAR header; run `ganpipe ingest` again")
        start = position + _BLOCK
        stop = start + int(size, 8)
        if stop > end:
            raise GanpipeError(f"{path}: ends within its member {name.decode()}; run `ganpipe ingest` again")
        if stop - start > _MAX_MEMBER_BYTES:
            raise GanpipeError(f"{path}: its member {name.decode()} has {stop - start:,} bytes: no image is that large")
        yield name.decode(), start, stop
        position = stop + -stop % _BLOCK
    raise GanpipeError(f"{path}: has no end-of-archive mark; run `ganpipe ingest` again")


def read_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a shard's members, in order.

    Raises:
        GanpipeError: it is not such a tar; names the file.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # mmap raises ValueError for an empty file
            raise GanpipeError(f"{path}: is empty; run `ganpipe ingest` again")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for name, start, stop in find_members(path, content):
                yield name, content[start:stop]
