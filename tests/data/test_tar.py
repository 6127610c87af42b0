"""Plain USTAR members: any tar program reads what is written; the strict reader refuses all else and names the file."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganpipe.data.shards.tar import read_members, tar_ending, tar_header, tar_member
from ganpipe.errors import GanpipeError

MEMBERS = [("a.cls", b"3"), ("a.png", bytes(range(256)) * 5), ("b.cls", b""), ("b.png", b"x" * 512)]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    content = b"".join(tar_member(name, content) for name, content in MEMBERS)
    (tmp_path / "x.tar").write_bytes(content + tar_ending(len(content)))
    return tmp_path / "x.tar"


def test_both_readers_agree(archive: Path) -> None:
    assert list(read_members(archive)) == MEMBERS
    with tarfile.open(archive) as tar:
        assert [(member.name, tar.extractfile(member).read()) for member in tar] == MEMBERS  # type: ignore[union-attr]
    assert archive.stat().st_size % tarfile.RECORDSIZE == 0


def test_the_bytes_are_those_of_tarfile(archive: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in MEMBERS:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert buffer.getvalue() == archive.read_bytes()


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=100), st.integers(0, 8**11 - 1))
def test_any_header_is_tarfiles(name: str, num_bytes: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = num_bytes
    assert tar_header(name, num_bytes) == info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(("name", "num_bytes"), [("x" * 101, 1), ("x", 8**11)])
def test_what_no_header_holds(name: str, num_bytes: int) -> None:
    with pytest.raises(ValueError, match="does not fit a USTAR header"):
        tar_header(name, num_bytes)


def with_entry(kind: bytes, name: str = "evil.png") -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        return info.tobuf(tarfile.USTAR_FORMAT) + content

    return change


def with_size(text: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content[:124] + text + content[124 + len(text) :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_entry(tarfile.SYMTYPE), "byte 0 is not a plain USTAR header"),
        (with_entry(tarfile.LNKTYPE), "byte 0 is not a plain USTAR header"),
        (with_entry(tarfile.CHRTYPE), "byte 0 is not a plain USTAR header"),
        (with_entry(tarfile.DIRTYPE), "byte 0 is not a plain USTAR header"),
        (with_size(b"77777777777"), r"ends within its member a\.cls"),
        (with_size(b"0000000-001"), "byte 0 is not a plain USTAR header"),
        (with_size(b"\x80\0\0\0\0\0\0\0\0\0\1"), "byte 0 is not a plain USTAR header"),
        (lambda content: content[:2000], r"ends within its member a\.png"),
        (lambda content: content[: 512 * 2], "has no end-of-archive mark"),
        (lambda content: b"text" * 1000, "byte 0 is not a plain USTAR header"),
    ],
)
def test_anything_else_is_refused(archive: Path, change: Callable[[bytes], bytes], message: str) -> None:
    archive.write_bytes(change(archive.read_bytes()))
    with pytest.raises(GanpipeError, match=rf"x\.tar: {message}"):
        list(read_members(archive))
