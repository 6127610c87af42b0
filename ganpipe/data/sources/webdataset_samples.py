"""Reads the samples of a WebDataset shard that others wrote: members of a tar with the same key form one sample.

Any tar is accepted (USTAR, GNU, PAX), plain or gzipped. Members are grouped as in the webdataset library: the key is
the path up to the first dot of the file's name, and consecutive members with the same key form one sample. Unlike the
library, this module also puts members together that do not follow each other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from ...errors import GanpipeError
from ..shards.left_out import Tally
from .files import printable
from .foreign_files import ForeignFile, naming_errors, open_foreign

_BLOCK = tarfile.BLOCKSIZE
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)")
_NAME_TO_LAST_DOT = re.compile(r"((?:.*/)?[^./][^/]*)\.([^./]*)")
_META = re.compile(r"(?:.*/)?__[^/]*__(?:$|/)")
_OTHER_PACKINGS = {
    b"\x28\xb5\x2f\xfd": "it is packed by zstd: unpack it (zstd -d)",
    b"BZh": "it is packed by bzip2: unpack it (bzip2 -d)",
    b"\xfd7zXZ\0": "it is packed by xz: unpack it (xz -d)",
    b"PK\3\4": "it is a zip file: unpack it, and pack a tar (unzip -d x OLD.zip; tar --sort=name -cf NEW.tar -C x .)",
    b"<": "it begins like a web page",
}
_MAX_MEMBER_BYTES = 2**40
MAX_IMAGE_BYTES = 2**30
MAX_TEXT_BYTES = 2**22
_MAX_HEADER_BYTES = 2**16
_MAX_SAMPLE_MEMBERS = 1_000
_MAX_END_BLOCKS = 2**11
_MAX_WAITING = 100_000
_MAX_HELD_BYTES = 2**28
_LINK = "links and devices in a tar"
_NO_MEMBER = "files that belong to no sample"
_KEY_ENDS_AT = "sources.webdataset.key_ends_at"
_REPACK = (
    "its other members may come much later: unpack the shard into an empty folder and pack it sorted "
    "(mkdir x; tar -xf OLD.tar -C x; tar --sort=name -cf NEW.tar -C x .)"
)
_START_OVER = "try again later: nothing of this ingest is kept, the same command begins it anew"


@dataclass(frozen=True)
class Member:
    """A file in a tar.

    Attributes:
        offset: position of its content in the tar, after unpacking if the tar is gzipped.
        num_bytes: size of its content.
        read: returns the content; may be called until the next member is requested.
    """

    offset: int
    num_bytes: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class ForeignSample:
    """The members with one key.

    Attributes:
        members: (offset, size in bytes) of each member, by extension.
        contents: the contents of those members that the mapping reads, by extension.
        given_up: whether the sample was returned incomplete because memory does not allow to wait for more members.
    """

    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    given_up: bool = False

    @property
    def num_held(self) -> int:
        """Bytes of content that the sample holds in memory."""
        return sum(map(len, self.contents.values()))

    def merged_with(self, later: ForeignSample, shard: ForeignFile) -> ForeignSample:
        """This sample with the members of a later part of it.

        Raises:
            GanpipeError: both have a member with the same extension.
        """
        if duplicates := sorted(self.members.keys() & later.members.keys()):
            raise GanpipeError(f"{shard.name}: sample {self.key} has two members .{duplicates[0]}; remove one")
        return ForeignSample(self.key, self.members | later.members, self.contents | later.contents)


@dataclass(frozen=True)
class MemberMapping:
    """Which members make a sample.

    Attributes:
        images: extensions of images, without dots; a sample needs one of them.
        texts: extensions of other members; a sample needs all of them.
        reads_images: whether the contents of images are read, too; else only their positions are recorded.
        last_dot: whether a name's extension begins at its last dot instead of its first.
    """

    images: tuple[str, ...]
    texts: frozenset[str]
    reads_images: bool
    last_dot: bool = False

    @property
    def name_pattern(self) -> re.Pattern[str]:
        """Matches a member's name; its groups are key and extension."""
        return _NAME_TO_LAST_DOT if self.last_dot else _NAME

    @property
    def extensions(self) -> frozenset[str]:
        return self.texts | frozenset(self.images)

    def max_bytes(self, extension: str) -> int:
        """The most bytes that are read of a member with this extension; 0 if it is not read at all."""
        if extension in self.texts:
            return MAX_TEXT_BYTES
        return MAX_IMAGE_BYTES if self.reads_images and extension in self.images else 0

    def is_complete(self, sample: ForeignSample) -> bool:
        members = sample.members.keys()
        return members >= self.texts and any(extension in members for extension in self.images)

    def hint(self, sample: ForeignSample) -> str:
        """A clause for an error message: what else may be the reason why a sample lacks a member; may be empty."""
        dotted = any(
            extension.rpartition(".")[2] in self.extensions for extension in sample.members if "." in extension
        )
        if dotted and not self.last_dot:
            return f"; its key ends at the first dot of its files' names: set {_KEY_ENDS_AT} to last dot"
        return f"; {_REPACK}" if sample.given_up else ""


class _TarWalk:
    """One pass over the members of a tar.

    Attributes:
        last: how far the tar was read, for error messages, such as "after 0001.png".
    """

    def __init__(self, shard: ForeignFile, stream: IO[bytes], left_out: Tally) -> None:
        self._shard, self._stream, self._left_out = shard, stream, left_out
        self._can_seek = not shard.is_remote and not isinstance(stream, gzip.GzipFile)
        self._position = 0
        self.last = "from its start"

    def _take(self, num_bytes: int) -> bytes:
        content = self._stream.read(num_bytes)
        self._position += len(content)
        return content

    def _content(self, name: str, num_bytes: int) -> bytes:
        content = self._take(num_bytes)
        if len(content) != num_bytes:
            raise GanpipeError(f"{self._shard.name}: truncated: it ends within {name}; fetch or write it again")
        return content

    def _skip_to(self, name: str, position: int) -> None:
        if self._can_seek:
            self._stream.seek(position - 1)
            self._position = position - 1
        while self._position < position:
            self._content(name, min(2**20, position - self._position))

    def _header(self) -> tarfile.TarInfo | None:
        start = self._position
        block = self._take(_BLOCK)
        if len(block) < _BLOCK:
            raise GanpipeError(
                f"{self._shard.name}: truncated: it ends {self.last} without a tar's end mark; fetch or write it again"
            )
        if not any(block):
            return self._after_end()
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            packing = next((f"; {what}" for begin, what in _OTHER_PACKINGS.items() if block.startswith(begin)), "")
            raise GanpipeError(
                f"{self._shard.name}: byte {start:,} ({self.last}) is not a header of a tar"
                f"{packing if not start else ''}"
            ) from None

    def _after_end(self) -> tarfile.TarInfo | None:
        """The first header of another tar that follows this one's end mark, as `cat` joins them; None if none does."""
        for _ in range(_MAX_END_BLOCKS):
            block = self._take(_BLOCK)
            if any(block):
                with contextlib.suppress(tarfile.HeaderError):  # other bytes after the end are ignored
                    return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                return None
            if len(block) < _BLOCK:
                return None
        return None

    def _size(self, name: str, renamed: str | None, info: tarfile.TarInfo) -> int:
        """The size of a member's content in bytes, as its header claims, checked against limits.

        Args:
            renamed: the size in a preceding PAX header; None if there is none.
        """
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise GanpipeError(f"{self._shard.name}: {name[:200]!r} is a sparse file; write it as a plain file")
        is_header = info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
        most = _MAX_HEADER_BYTES if is_header else _MAX_MEMBER_BYTES
        if renamed is not None and not (renamed.isascii() and renamed.isdigit() and len(renamed) < 20):
            raise GanpipeError(f"{self._shard.name}: {name[:200]!r} says that its size is {renamed[:20]!r}")
        num_bytes = info.size if renamed is None else int(renamed)
        if not 0 <= num_bytes <= most:
            raise GanpipeError(f"{self._shard.name}: {name[:200]!r} says that it has {num_bytes:,} bytes")
        return num_bytes

    def members(self) -> Iterator[tuple[str, Member]]:
        """(name, member) of each regular file; a member can be read until the next one is requested."""
        renamed: dict[str, str] = {}
        while (info := self._header()) is not None:
            name = printable(renamed.get("path", info.name))
            num_bytes = self._size(name, renamed.get("size"), info)
            start = self._position
            if info.type == tarfile.GNUTYPE_LONGNAME:
                renamed["path"] = self._content(name, num_bytes).rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                renamed |= _pax_values(self._content(name, num_bytes))
            elif info.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
                if info.isreg():
                    yield name, Member(start, num_bytes, lambda name=name, size=num_bytes: self._content(name, size))  # type: ignore[misc]
                    self.last = f"after {name}"
                else:
                    num_bytes = 0  # a folder or link
                    if not info.isdir():
                        self._left_out.add(_LINK, name)
                renamed = {}
            self._skip_to(name, start + num_bytes + -num_bytes % _BLOCK)


def _pax_values(content: bytes) -> dict[str, str]:
    """The values `path` and `size` in a PAX header, which consists of records "<length> <key>=<value>\\n"."""
    found = {}
    while content:
        length, _, _ = content.partition(b" ")
        record = content[: int(length)] if length.isdigit() and int(length) else content
        key, _, value = record[len(length) + 1 :].rstrip(b"\n").partition(b"=")
        if key in (b"path", b"size"):
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        content = content[len(record) :]
    return found


def _consecutive_members(
    shard: ForeignFile, walk: _TarWalk, mapping: MemberMapping, left_out: Tally
) -> Iterator[ForeignSample]:
    """Consecutive members with the same key, as one sample; it may be incomplete."""
    current: ForeignSample | None = None
    pattern, extensions = mapping.name_pattern, mapping.extensions
    for name, member in walk.members():
        matched = pattern.fullmatch(name)
        if matched is None or _META.match(name):
            left_out.add(_NO_MEMBER, name)
            continue
        key, extension = matched[1], matched[2].lower()
        if current is None or key != current.key:
            if current is not None:
                yield current
            current = ForeignSample(key)
        if extension in current.members:
            raise GanpipeError(f"{shard.name}: sample {key} has two members .{extension}; remove or rename one")
        current.members[extension] = (member.offset, member.num_bytes)
        if len(current.members) > _MAX_SAMPLE_MEMBERS:
            raise GanpipeError(
                f"{shard.name}: sample {key} has more than {_MAX_SAMPLE_MEMBERS:,} members{mapping.hint(current)}"
            )
        most = mapping.max_bytes(extension)
        if not most:
            if extension not in extensions:
                left_out.add(f".{extension}", name)
            continue
        if member.num_bytes > most:
            raise GanpipeError(f"{shard.name}: {name}: {member.num_bytes:,} bytes; at most {most:,} are read")
        current.contents[extension] = member.read()
    if current is not None:
        yield current


def read_samples(shard: ForeignFile, mapping: MemberMapping, left_out: Tally | None = None) -> Iterator[ForeignSample]:
    """The shard's samples in the order in which they become complete, and at the end those that lack members.

    Members of a sample that do not follow each other are put together as far as memory allows: at most _MAX_WAITING
    incomplete samples and _MAX_HELD_BYTES of their contents are held. Beyond that, the oldest incomplete sample is
    returned as it is.

    Args:
        left_out: counts files that belong to no sample, and members that the mapping does not name.

    Raises:
        GanpipeError: the shard does not exist, is truncated or not a tar, or has a member twice; names the shard, and
            the member or key.
        UnavailableError: the shard's server failed.
    """
    walk: _TarWalk | None = None
    whole: set[int] = set()
    waiting: dict[str, ForeignSample] = {}
    num_held = 0
    left_out = Tally() if left_out is None else left_out
    with naming_errors(shard, lambda: walk.last if walk else "at all", _START_OVER), open_foreign(shard) as stream:
        walk = _TarWalk(shard, stream, left_out)
        for run in _consecutive_members(shard, walk, mapping, left_out):
            if run.key in waiting:
                held = waiting.pop(run.key)
                num_held -= held.num_held
                run = held.merged_with(run, shard)
            if mapping.is_complete(run):
                whole.add(hash(run.key))
                yield run
            elif hash(run.key) in whole:
                if again := [extension for extension in run.members if extension in mapping.extensions]:
                    raise GanpipeError(f"{shard.name}: sample {run.key} has two members .{again[0]}; remove one")
            else:
                waiting[run.key] = run
                num_held += run.num_held
            while len(waiting) > _MAX_WAITING or num_held > _MAX_HELD_BYTES:
                first = waiting.pop(next(iter(waiting)))
                num_held -= first.num_held
                yield dataclasses.replace(first, given_up=True)
    yield from waiting.values()
