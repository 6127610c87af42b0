"""WebDataset shards that others wrote: found by pattern, opened from a path or URL, walked sample by sample.

Any tar is taken (USTAR, GNU, PAX), plain or gzipped. Members are grouped as the webdataset library groups them: the key
is the path up to the first dot of the file's name, members of one key that follow each other are a sample. Members that
lie apart are put together, too.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import glob
import gzip
import http.client
import io
import re
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import braceexpand
import fsspec

from ...errors import GanpipeError, UnavailableError
from ...redaction import expand_variables
from ..access.retrying import (
    CONNECT_TIMEOUT_SECONDS,
    HttpFile,
    RemoteFile,
    ResumingReader,
    StoreFile,
    reason_of,
    with_retries,
)
from ..access.unpacking import LimitedGzipFile
from ..shards.left_out import Tally
from .files import printable

_KEY = "sources.webdataset.shards"
_BLOCK = tarfile.BLOCKSIZE
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)")
_NAME_TO_LAST_DOT = re.compile(r"((?:.*/)?[^./][^/]*)\.([^./]*)")
_META = re.compile(r"(?:.*/)?__[^/]*__(?:$|/)")
_GZIP = b"\x1f\x8b"
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
_MAX_SHARDS = 1_000_000
_MAX_PATTERN_BYTES = 2**28
_MAX_BRACES = 20
_START_OVER = "try again later: nothing of this ingest is kept, the same command begins it anew"
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")


@dataclass(frozen=True)
class ForeignShard:
    """A shard's place: a local path, or a URL."""

    url: str

    @property
    def is_remote(self) -> bool:
        return "://" in self.url

    @property
    def name(self) -> str:
        """What messages and manifests call it: without a password or token that its URL may hold."""
        if not self.is_remote:
            return self.url
        parts = urllib.parse.urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True)
class Member:
    """A file in a tar: where its content lies (after unpacking, if the tar is gzipped), and how to read it now."""

    offset: int
    num_bytes: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class ForeignSample:
    """The members of one key, by extension; what was asked for is read already.

    Attributes:
        given_up: others of its members may come later in the shard, more than memory allows to wait for.
    """

    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    given_up: bool = False

    @property
    def num_held(self) -> int:
        """Bytes of what was read."""
        return sum(map(len, self.contents.values()))

    def merged_with(self, later: ForeignSample, shard: ForeignShard) -> ForeignSample:
        """With members that came later.

        Raises:
            GanpipeError: a member is in both.
        """
        if duplicates := sorted(self.members.keys() & later.members.keys()):
            raise GanpipeError(f"{shard.name}: sample {self.key} has two members .{duplicates[0]}; remove one")
        return ForeignSample(self.key, self.members | later.members, self.contents | later.contents)


@dataclass(frozen=True)
class MemberMapping:
    """Which members make a sample.

    Attributes:
        images: extensions, of which a sample needs one.
        texts: extensions, of which it needs all.
        reads_images: whether images are read, too; else only found.
        last_dot: a name's extension begins at its last dot, not at its first.
    """

    images: tuple[str, ...]
    texts: frozenset[str]
    reads_images: bool
    last_dot: bool = False

    @property
    def name(self) -> re.Pattern[str]:
        return _NAME_TO_LAST_DOT if self.last_dot else _NAME

    @property
    def extensions(self) -> frozenset[str]:
        return self.texts | frozenset(self.images)

    def max_bytes(self, extension: str) -> int:
        """That are read of such a member; 0 leaves it unread."""
        if extension in self.texts:
            return MAX_TEXT_BYTES
        return MAX_IMAGE_BYTES if self.reads_images and extension in self.images else 0

    def is_complete(self, sample: ForeignSample) -> bool:
        members = sample.members.keys()
        return members >= self.texts and any(extension in members for extension in self.images)

    def hint(self, sample: ForeignSample) -> str:
        """What else may be the cause where a sample lacks a member."""
        dotted = any(
            extension.rpartition(".")[2] in self.extensions for extension in sample.members if "." in extension
        )
        if dotted and not self.last_dot:
            return f"; its key ends at the first dot of its files' names: set {_KEY_ENDS_AT} to last dot"
        return f"; {_REPACK}" if sample.given_up else ""


def expand_patterns(patterns: tuple[str, ...], root: Path) -> list[ForeignShard]:
    """The shards that patterns name, in their order: {000..123} and {a,b} everywhere, * and ? in local paths.

    Raises:
        GanpipeError: naming the pattern: nothing fits it, or it names a file that is not there.
    """
    found: list[ForeignShard] = []
    for pattern in patterns:
        for one in _expanded(pattern):
            if "://" in one:
                found.append(ForeignShard(one))
                continue
            if ".." in Path(one).parts:
                raise GanpipeError(
                    f"sources.webdataset.shards: {one!r} leads out of sources.webdataset.path; set that to the folder "
                    "which holds all shards"
                )
            if glob.has_magic(one):
                names = sorted(glob.glob(one, root_dir=root, recursive=True))
                if not names:
                    raise GanpipeError(f"sources.webdataset.shards: {one!r} fits no file in {root}")
            else:
                names = [one]
            for name in names:
                if not (root / name).is_file():
                    raise GanpipeError(f"sources.webdataset.shards: {root / name}: there is no such shard")
                found.append(ForeignShard(str(root / name)))
    return found


def _expanded(pattern: str) -> list[str]:
    """What a pattern's braces stand for, counted before it is made."""
    try:
        count = _num_expanded(re.sub(r"\\.", "__", pattern))
        if not 1 <= count <= _MAX_SHARDS or count * len(pattern) > _MAX_PATTERN_BYTES:
            raise ValueError(f"stands for {count:,} names; expected 1 to {_MAX_SHARDS:,} short ones")
        return list(braceexpand.braceexpand(pattern))
    except (ValueError, RecursionError) as error:
        shown = pattern if len(pattern) < 200 else f"{pattern[:200]}..."
        raise GanpipeError(f"sources.webdataset.shards: {shown!r}: {error}") from None


def _num_expanded(pattern: str) -> int:
    """How many names the pattern stands for, as the braceexpand package reads it."""
    count, depth, start = 1, 0, 0
    for position, char in enumerate(pattern):
        depth += (char == "{") - (char == "}")
        if depth > _MAX_BRACES:
            raise ValueError(f"braces stand in each other more than {_MAX_BRACES} deep")
        if char == "{" and depth == 1:
            start = position + 1
        elif char == "}" and depth == 0:
            inner = pattern[start:position]
            if found := _RANGE.fullmatch(inner):
                count *= 1 + abs(int(found[2]) - int(found[1])) // max(1, int(found[3] or 1))
            else:
                count *= sum(map(_num_expanded, _alternatives(inner)))
    return count


def _alternatives(inner: str) -> list[str]:
    """What stands between a group's own commas."""
    parts, depth = [""], 0
    for char in inner:
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def is_gzipped(shard: ForeignShard) -> bool:
    """Whether a local shard is."""
    try:
        with open(shard.url, "rb") as file:
            return file.read(2) == _GZIP
    except OSError as error:
        raise GanpipeError(f"{shard.name}: cannot be read ({error.strerror})") from None


@contextmanager
def _opened(shard: ForeignShard) -> Iterator[IO[bytes]]:
    """The shard's bytes, unpacked."""
    raw: Any = ResumingReader(shard.name, _remote_file(shard)) if shard.is_remote else open(shard.url, "rb")  # noqa: SIM115
    with raw:
        buffered = io.BufferedReader(raw, 2**20)
        yield LimitedGzipFile(buffered, shard.name) if buffered.peek(2)[:2] == _GZIP else buffered  # type: ignore[misc]


def _is_web(shard: ForeignShard) -> bool:
    return shard.url.startswith(("http://", "https://"))


def _remote_file(shard: ForeignShard) -> RemoteFile:
    if _is_web(shard):
        return HttpFile(lambda headers: _request(shard, "GET", dict(headers)))
    return StoreFile(_filesystem(shard), expand_variables(shard.url, _KEY))


def _request(shard: ForeignShard, method: str, headers: dict[str, str] | None = None) -> Any:
    """The answer to a request for a shard at an http(s) URL; user and password in it become a header."""
    parts = urllib.parse.urlsplit(expand_variables(shard.url, _KEY))
    user_info, _, host = parts.netloc.rpartition("@")
    url = urllib.parse.urlunsplit(parts._replace(netloc=host))
    request = urllib.request.Request(url, headers=headers or {}, method=method)
    if user_info:
        encoded = base64.b64encode(urllib.parse.unquote(user_info).encode()).decode()
        # Not sent on to another host that this one may name.
        request.add_unredirected_header("Authorization", f"Basic {encoded}")
    return urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_SECONDS)


def _filesystem(shard: ForeignShard) -> fsspec.AbstractFileSystem:
    scheme = shard.url.split("://")[0]
    try:
        filesystem: fsspec.AbstractFileSystem = fsspec.filesystem(scheme)
    except (ImportError, ValueError) as error:
        raise GanpipeError(f"{shard.name}: nothing here reads {scheme}:// ({error})") from None
    return filesystem


@contextmanager
def _naming_errors(shard: ForeignShard, place: Callable[[], str], advice: str) -> Iterator[None]:
    """Errors of the disk or network as one line that names the shard and how far it was read.

    Args:
        advice: what to do about a server that stays away.
    """
    try:
        yield
    except urllib.error.HTTPError as error:
        raise GanpipeError(f"{shard.name}: {reason_of(error)}") from None
    except (OSError, EOFError, zlib.error, http.client.HTTPException) as error:
        raise GanpipeError(f"{shard.name}: cannot be read {place()} ({reason_of(error)})") from None
    except UnavailableError as error:
        reason = str(error).removeprefix(f"{shard.name}: ")
        raise UnavailableError(f"{shard.name}: cannot be read {place()} ({reason}); {advice}") from None


class _TarWalk:
    """One pass over the members of a tar."""

    def __init__(self, shard: ForeignShard, stream: IO[bytes], left_out: Tally) -> None:
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
                f"{self._shard.name}: byte {start:,} ({self.last}) is no header of a tar{packing if not start else ''}"
            ) from None

    def _after_end(self) -> tarfile.TarInfo | None:
        """The header of another tar behind this one's end mark, as `cat` joins them; None where no such follows."""
        for _ in range(_MAX_END_BLOCKS):
            block = self._take(_BLOCK)
            if any(block):
                with contextlib.suppress(tarfile.HeaderError):  # no tar: whatever it is, it was written behind the end
                    return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                return None
            if len(block) < _BLOCK:
                return None
        return None

    def _size(self, name: str, renamed: str | None, info: tarfile.TarInfo) -> int:
        """Bytes of a member's content, which nothing that was read yet bears out."""
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise GanpipeError(f"{self._shard.name}: {name[:200]!r} is a file with holes; write it as a plain one")
        is_header = info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
        most = _MAX_HEADER_BYTES if is_header else _MAX_MEMBER_BYTES
        if renamed is not None and not (renamed.isascii() and renamed.isdigit() and len(renamed) < 20):
            raise GanpipeError(f"{self._shard.name}: {name[:200]!r} says that its size is {renamed[:20]!r}")
        num_bytes = info.size if renamed is None else int(renamed)
        if not 0 <= num_bytes <= most:
            raise GanpipeError(f"{self._shard.name}: {name[:200]!r} says that it has {num_bytes:,} bytes")
        return num_bytes

    def members(self) -> Iterator[tuple[str, Member]]:
        """Names and members; a member's content can be read until the next one is asked for."""
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
    """`path` and `size` of a PAX header, which is made of records "<length> <key>=<value>\\n"."""
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
    shard: ForeignShard, walk: _TarWalk, mapping: MemberMapping, left_out: Tally
) -> Iterator[ForeignSample]:
    """Members of one key that follow each other."""
    current: ForeignSample | None = None
    pattern, extensions = mapping.name, mapping.extensions
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


def read_samples(shard: ForeignShard, mapping: MemberMapping, left_out: Tally | None = None) -> Iterator[ForeignSample]:
    """The shard's samples, in the order in which their members are complete; at last those that lack some.

    Members that lie apart are put together as far as memory allows: of those that wait for others, and of what was read
    of them, only so much is held.

    Args:
        left_out: takes the files that belong to no sample, and members that the mapping does not name.

    Raises:
        GanpipeError: naming the shard, and member or key: it is not there, no tar, truncated, or has a member twice.
    """
    walk: _TarWalk | None = None
    whole: set[int] = set()
    waiting: dict[str, ForeignSample] = {}
    num_held = 0
    left_out = Tally() if left_out is None else left_out
    with _naming_errors(shard, lambda: walk.last if walk else "at all", _START_OVER), _opened(shard) as stream:
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


def change_marks(shard: ForeignShard) -> list[str | int]:
    """What changes when the shard does: size and time of change, or what its server says of it.

    Raises:
        GanpipeError: it is not there.
    """
    with _naming_errors(shard, lambda: "at all", "try again later"):
        if not shard.is_remote:
            status = Path(shard.url).stat()
            return [shard.url, status.st_size, status.st_mtime_ns]
        if _is_web(shard):
            with with_retries(shard.name, lambda: _request(shard, "HEAD")) as answer:
                extensions = (answer.headers.get(name) or "" for name in ("ETag", "Last-Modified", "Content-Length"))
                return [shard.url, *extensions]
        filesystem = _filesystem(shard)
        filesystem.invalidate_cache()
        about = with_retries(shard.name, lambda: filesystem.info(expand_variables(shard.url, _KEY)))
        return [shard.url, *(str(about.get(name, "")) for name in ("ETag", "etag", "LastModified", "mtime", "size"))]
