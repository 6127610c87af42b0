"""Shards that plain webdataset and other tar programs wrote, local and from a real HTTP server; faults are named."""

from __future__ import annotations

import gzip
import io
import pickle
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import webdataset
from file_server import serve
from PIL import Image

from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.sources import webdataset_samples
from ganpipe.data.sources.webdataset import Webdataset, WebdatasetSettings
from ganpipe.errors import GanpipeError
from ganpipe.section import parse

MakeSettings = Callable[..., DataSettings]


def source_of(path: Path | None, *shards: str, **values: Any) -> Webdataset:
    given = {"path": str(path) if path else None, **({"shards": list(shards)} if shards else {}), **values}
    return Webdataset(WebdatasetSettings.model_validate(given))


def image(number: int, size: int = 20) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)


def sample(number: int, **more: Any) -> dict[str, Any]:
    return {
        "__key__": f"part/{number:04d}",
        "png": image(number),
        "cls": number % 3,
        "txt": f"image {number}",
        "json": {"label": "abc"[number % 3], "about": {"caption": f"the {number}th"}},
        **more,
    }


def write(path: Path, *samples: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for one in samples:
            writer.write(one)
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of four samples each."""
    for number in range(3):
        write(tmp_path / "in" / f"data-{number:06d}.tar", *map(sample, range(4 * number, 4 * number + 4)))
    return tmp_path / "in"


@pytest.fixture
def served(shards: Path) -> Iterator[str]:
    """The URL under which the shards are served."""
    with serve(shards) as url:
        yield url


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_local_shards(shards: Path) -> None:
    source = source_of(shards, label="cls", text="txt", licence="CC0")
    description = source.describe()
    assert (list(description.fields), description.classes) == (["image", "label", "text"], ("0", "1", "2"))
    items = list(source.items())
    assert [item.name for item in items[:5]] == [
        *(f"data-000000.tar: part/000{number}" for number in range(4)),
        "data-000001.tar: part/0004",
    ]
    assert [item.values.get("label") for item in items] == [number % 3 for number in range(12)]
    assert items[7].values["text"] == "image 7"
    reference = items[7].images["image"]
    np.testing.assert_array_equal(np.asarray(reference.decode(reference.read(), DataSettings())), image(7))
    assert pickle.loads(pickle.dumps(items)) == items  # noqa: S301 - made here


@pytest.mark.parametrize(
    ("label", "text", "classes"),
    [
        ("cls", "txt", ("0", "1", "2")),
        ("json:label", "json:about.caption", ("a", "b", "c")),
        ("CLS", None, ("0", "1", "2")),
        (None, None, ()),
    ],
)
def test_the_mapping(label: str | None, text: str | None, classes: tuple[str, ...], shards: Path) -> None:
    source = source_of(shards, label=label, text=text)
    assert source.describe().classes == classes
    item = list(source.items())[4]
    assert item.values.get("label") == (1 if label else None)
    assert item.values.get("text") == {"txt": "image 4", "json:about.caption": "the 4th", None: None}[text]


def test_patterns(shards: Path, tmp_path: Path) -> None:
    names = lambda *patterns: [item.name.split(":")[0] for item in source_of(shards, *patterns).items()][::4]  # noqa: E731
    assert names("data-{000002,000000}.tar") == ["data-000002.tar", "data-000000.tar"]
    assert names("data-{000001..000002}.tar") == ["data-000001.tar", "data-000002.tar"]
    assert names("data-00000[01].tar") == ["data-000000.tar", "data-000001.tar"]
    assert len(names(str(shards / "*.tar"))) == 3
    write(shards / "more" / "deep" / "x.tar", *map(sample, range(4)))
    assert names("**/x.tar") == ["more/deep/x.tar"]


def test_plain_gzipped_and_served_shards_give_the_same_images(
    shards: Path, served: str, tmp_path: Path, settings_of: MakeSettings
) -> None:
    for path in sorted(shards.glob("*.tar")):
        (shards / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    with fsspec.open_files(["memory://bucket/data-00000*.tar"], "wb", num=3, name_function=lambda n: f"{n}") as files:
        for file, path in zip(files, sorted(shards.glob("*.tar")), strict=True):
            file.write(path.read_bytes())
    settings = settings_of(source="webdataset", validation_fraction=0.3, samples_per_shard=5)
    mapping = {"label": "json:label", "text": "txt"}
    remote = {**mapping, "classes": ["a", "b", "c"]}
    made = []
    for name, source in {
        "plain": source_of(shards, "data-*.tar", **mapping),
        "gzipped": source_of(shards, "data-*.tar.gz", **mapping),
        "served": source_of(None, f"{served}/data-{{000000..000002}}.tar", **remote),
        "served gzipped": source_of(None, f"{served}/data-{{000000..000002}}.tar.gz", **remote),
        "fsspec": source_of(None, "memory://bucket/data-00000{0..2}.tar", **remote),
    }.items():
        write_shards(settings, source, tmp_path / name, num_processes=2 if name == "served" else 1)
        made.append(contents(tmp_path / name))
    assert all(one == made[0] for one in made)
    assert read_manifest(tmp_path / "served").classes == ("a", "b", "c")
    dataset = open_dataset(tmp_path / "plain", "train")
    assert dataset.rows(np.arange(len(dataset)))["label"].max() == 2


def test_the_limit_takes_the_same_images_from_a_stream(
    shards: Path, served: str, tmp_path: Path, settings_of: MakeSettings
) -> None:
    settings = settings_of(source="webdataset", validation_fraction=0, limit=5)
    manifest = write_shards(settings, source_of(None, f"{served}/data-00000{{0,1,2}}.tar"), tmp_path / "out")
    assert manifest.num_samples("train") == 5


def test_a_tar_of_the_tar_program(tmp_path: Path) -> None:
    """PAX headers with long names, folders, links and files that are no samples; the image is no first choice."""
    folder = tmp_path / "files" / ("long-" * 30)
    folder.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(image(number)).save(folder / f"{number}.webp", lossless=True)
        (folder / f"{number}.cls").write_text(f"{number}\n")
    (folder / "link.png").symlink_to("0.webp")
    (folder / "README").write_text("no sample")
    (folder / ".hidden.png").write_text("no sample")
    (folder / "__meta__").mkdir()
    (folder / "__meta__" / "x.png").write_text("no sample")
    archive = str(tmp_path / "x.tar")
    order = ["--sort=name", "--format=posix"]
    subprocess.run(["tar", *order, "-cf", archive, "-C", str(tmp_path / "files"), folder.name], check=True)
    source = source_of(tmp_path, label="cls")
    assert source.describe().classes == ("0", "1", "2")
    items = list(source.items())
    assert [item.name for item in items] == [f"x.tar: {folder.name}/{number}" for number in range(3)]
    reference = items[2].images["image"]
    np.testing.assert_array_equal(np.asarray(reference.decode(reference.read(), DataSettings())), image(2))


def test_gnu_long_names(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(image(1)).save(buffer, "png")
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("a/" * 80 + "name.png")
        info.size = len(buffer.getvalue())
        archive.addfile(tarfile.TarInfo("a"), None)
        archive.addfile(info, io.BytesIO(buffer.getvalue()))
    (item,) = source_of(tmp_path).items()
    assert item.name == "x.tar: " + "a/" * 80 + "name"
    assert item.images["image"].read() == buffer.getvalue()


def test_a_chosen_image_member(tmp_path: Path) -> None:
    write(tmp_path / "x.tar", {"__key__": "k", "png": image(1), "mask.png": image(2)})
    for extension, number in (("mask.png", 2), ("png", 1), (None, 1)):
        (item,) = source_of(tmp_path, image=extension).items()
        reference = item.images["image"]
        np.testing.assert_array_equal(np.asarray(reference.decode(reference.read(), DataSettings())), image(number))


def test_unreadable_members_follow_the_rule(shards: Path, tmp_path: Path, settings_of: MakeSettings) -> None:
    write(shards / "data-000009.tar", sample(20), {**sample(21), "png": b"no png"}, {**sample(22), "png": b""})
    with pytest.raises(GanpipeError, match=r"data-000009\.tar: part/0021: not an image.*data\.unreadable"):
        write_shards(settings_of(source="webdataset"), source_of(shards), tmp_path / "out")
    manifest = write_shards(settings_of(source="webdataset", unreadable="skip"), source_of(shards), tmp_path / "out")
    assert manifest.skipped == ("data-000009.tar: part/0021", "data-000009.tar: part/0022")
    assert sum(shard.num_samples for shard in manifest.shards) == 13


def cut(num_bytes: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:num_bytes]


def cut_in_last_header(content: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return content[: archive.getmembers()[-1].offset_data - 400]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "within a member": (cut(10 * 1024 + 900), r"data-000001\.tar: truncated: it ends within part/\d+\.\w+"),
    "within a header": (
        cut_in_last_header,
        r"data-000001\.tar: truncated: it ends after part/\d+\.\w+ without a tar's end",
    ),
    "without its end": (lambda content: content.rstrip(b"\0") + bytes(-len(content.rstrip(b"\0")) % 512), "truncated"),
    "empty": (cut(0), r"data-000001\.tar: truncated: it ends from its start"),
    "text": (
        lambda content: b"<html>404</html>" * 100,
        r"data-000001\.tar: byte 0 \(from its start\) is not a header",
    ),
    "damaged header": (lambda content: b"x" + content[1:], r"data-000001\.tar: byte 0 .* is not a header"),
}


@pytest.mark.parametrize("where", ["local", "served"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_tar_is_named(
    kind: str, where: str, shards: Path, served: str, tmp_path: Path, settings_of: MakeSettings
) -> None:
    spoil, message = DAMAGE[kind]
    path = shards / "data-000001.tar"
    path.write_bytes(spoil(path.read_bytes()))
    source = source_of(shards) if where == "local" else source_of(None, f"{served}/data-{{000000..000002}}.tar")
    with pytest.raises(GanpipeError, match=message) as caught:
        write_shards(settings_of(source="webdataset"), source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_damaged_gzip_is_named(shards: Path, tmp_path: Path, settings_of: MakeSettings) -> None:
    packed = gzip.compress((shards / "data-000001.tar").read_bytes())
    (shards / "x.tar.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(GanpipeError, match=r"x\.tar\.gz: cannot be read after part/\d+\.\w+ \(Compressed file ended"):
        write_shards(settings_of(source="webdataset"), source_of(shards, "x.tar.gz"), tmp_path / "out")


def test_shards_that_are_not_there(shards: Path, served: str) -> None:
    with pytest.raises(GanpipeError, match=r"shards: .*/data-000003\.tar: there is no such file"):
        source_of(shards, "data-{000000..000003}.tar").check()
    with pytest.raises(GanpipeError, match=r"shards: '\*\.tgz' matches no file in "):
        source_of(shards, "*.tgz").check()
    with pytest.raises(GanpipeError, match=rf"{served}/data-000003\.tar: HTTP 404 File not found"):
        list(source_of(None, f"{served}/data-000003.tar").items())
    with pytest.raises(GanpipeError, match=r"http://127\.0\.0\.1:1/x\.tar: cannot be read at all \(.*refused"):
        list(source_of(None, "http://127.0.0.1:1/x.tar").items())
    with pytest.raises(GanpipeError, match=r"nosuch://a/x\.tar: no driver for nosuch://"):
        list(source_of(None, "nosuch://a/x.tar").items())
    with pytest.raises(GanpipeError, match=r"memory://nowhere/x\.tar: cannot be read at all"):
        list(source_of(None, "memory://nowhere/x.tar").items())
    with pytest.raises(GanpipeError, match=r"shards: '\{a,b\.tar'"):
        source_of(shards, "{a,b.tar").check()


def test_paths(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(GanpipeError, match=r"sources\.webdataset\.path: not set"):
        Webdataset(WebdatasetSettings()).check()
    with pytest.raises(GanpipeError, match=r"sources\.webdataset\.path: .*absent does not exist"):
        source_of(tmp_path / "absent").check()
    with pytest.raises(GanpipeError, match=r"is a file, not a folder"):
        source_of(shards / "data-000000.tar").check()
    write(tmp_path / "empty" / "x.tar")
    with pytest.raises(GanpipeError, match=r"x\.tar: holds no sample"):
        source_of(tmp_path / "empty").describe()


def test_a_password_in_a_url_is_shown_to_nobody(served: str) -> None:
    url = served.replace("http://", "http://me:secret@") + "/data-000009.tar?token=secret"
    with pytest.raises(GanpipeError) as caught:
        list(source_of(None, url).items())
    assert "secret" not in str(caught.value)
    assert served.removeprefix("http://") in str(caught.value)


def one(**members: Any) -> dict[str, Any]:
    return {"__key__": "k", "png": image(1), **members}


@pytest.mark.parametrize(
    ("members", "settings", "message"),
    [
        (
            one(cls=1),
            {"label": "clas"},
            r"x\.tar: sample k has no \.clas, which sources\.webdataset\.label names .*'cls'",
        ),
        (one(cls=1), {"image": "jpg"}, r"x\.tar: sample k has no \.jpg, which sources\.webdataset\.image names"),
        (one(cls=1), {"text": "txt"}, r"x\.tar: sample k has no \.txt, which .*text names \(it has \.cls, \.png\)"),
        (
            {"__key__": "k", "tiff": b"x"},
            {},
            r"x\.tar: sample k has no \.png, \.jpg, .* \(it has \.tiff\); set",
        ),
        (one(json={"lable": 1}), {"label": "json:label"}, r"sample k: \.json has no key 'label'; did you mean 'lable'"),
        (one(json={"a": 1}), {"label": "json:a.b"}, r"sample k: \.json has no key 'b'; int has no keys"),
        (one(json=b"{"), {"label": "json:a"}, r"x\.tar: sample k: \.json: not JSON \("),
        (one(json={"a": 1.5}), {"label": "json:a"}, r"sample k: json:a is 1\.5; expected a class"),
        (one(json={"a": 1}), {"text": "json:a"}, r"sample k: json:a is 1; expected a text"),
        (one(txt=b"\xff"), {"text": "txt"}, r"sample k: \.txt: not UTF-8 text"),
        (one(cls=b" "), {"label": "cls"}, r"sample k: cls is ' '; expected a class"),
        (one(cls=3), {"label": "cls", "classes": 3}, r"sample k: cls is '3', which is none of the 3 classes"),
        (one(cls=b"cta"), {"label": "cls", "classes": ["cat"]}, r"sample k: cls is 'cta', .* did you mean 'cat'\?"),
    ],
)
def test_a_mapping_that_does_not_fit(
    members: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "x.tar", members)
    with pytest.raises(GanpipeError, match=message) as caught:
        source_of(tmp_path, **settings).check()
    assert "\n" not in str(caught.value)


def test_a_member_that_is_there_twice(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("k.png"), None)
    with pytest.raises(GanpipeError, match=r"x\.tar: sample k has two members \.png"):
        source_of(tmp_path).check()


def pack(path: Path, *members: tuple[str, bytes], **options: Any) -> Path:
    """A tar of these members, in this order."""
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def deep_png(number: int) -> bytes:
    """Of 16 bits."""
    file = io.BytesIO()
    values = np.random.default_rng(number).integers(0, 2**14, (20, 20)).astype(np.uint16)
    Image.fromarray(values).save(file, "png")
    return file.getvalue()


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image(number)).save(buffer, "png")
    return buffer.getvalue()


def apart(*numbers: int) -> list[tuple[str, bytes]]:
    """Members as `tar -cf x.tar *.png *.cls` writes them: all images, then all labels."""
    return [(f"./{n}.PNG", png(n)) for n in numbers] + [(f"./{n}.cls", b"%d" % (n % 2)) for n in numbers]


@pytest.mark.parametrize("packed", [False, True])
def test_members_that_lie_apart_are_put_together(packed: bool, served: str, shards: Path) -> None:
    path = pack(shards / "apart.tar", *apart(*range(8)))
    name = "apart.tar.gz" if packed else "apart.tar"
    if packed:
        (shards / name).write_bytes(gzip.compress(path.read_bytes()))
    for source in (
        source_of(shards, name, label="cls"),
        source_of(None, f"{served}/{name}", label="cls", classes=2),
    ):
        source.check()
        items = list(source.items())
        assert [(item.name.split(": ")[1], item.values.get("label")) for item in items] == [
            (f"./{n}", n % 2) for n in range(8)
        ]
        assert [item.images["image"].read() for item in items] == [png(n) for n in range(8)]


def test_more_than_memory_allows_is_to_be_packed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset_samples, "_MAX_WAITING", 3)
    (tmp_path / "in").mkdir()
    path = pack(tmp_path / "in" / "OLD.tar", *apart(*range(6)))
    with pytest.raises(GanpipeError) as caught:
        source_of(tmp_path / "in", label="cls").check()
    message = str(caught.value)
    assert message.startswith(f"{path}: sample ./0 has no .cls, which sources.webdataset.label names (it has .png); ")
    command = message[message.index("(mkdir") + 1 : -1]
    assert command == "mkdir x; tar -xf OLD.tar -C x; tar --sort=name -cf NEW.tar -C x ."
    for step in command.split("; "):
        subprocess.run(step.split(), cwd=path.parent, check=True)
    items = list(source_of(tmp_path / "in", "NEW.tar", label="cls").items())
    assert [(item.name, item.values.get("label")) for item in items] == [(f"NEW.tar: ./{n}", n % 2) for n in range(6)]


def test_keys_with_dots(tmp_path: Path) -> None:
    pack(tmp_path / "x.tar", *((f"set/img.{n:04d}{end}", png(n)) for n in range(3) for end in (".png", ".seg.png")))
    with pytest.raises(
        GanpipeError,
        match=r"sample set/img has no \.png, .* \(it has \.0000\.png, \.0000\.seg\.png, .*\); set .*; its key ends at "
        r"the first dot of its files' names: set sources\.webdataset\.key_ends_at to last dot",
    ):
        source_of(tmp_path).check()
    names = [item.name for item in source_of(tmp_path, key_ends_at="last dot").items()]
    assert names == [f"x.tar: set/img.{n:04d}{more}" for n in range(3) for more in ("", ".seg")]
    pack(tmp_path / "x.tar", *((f"img.{n:04d}.png", b"") for n in range(1001)))
    with pytest.raises(GanpipeError, match=r"sample img has more than 1,000 members; .*key_ends_at to last dot"):
        source_of(tmp_path).check()


def test_a_sample_without_its_image_follows_the_rule(shards: Path, tmp_path: Path, settings_of: MakeSettings) -> None:
    pack(shards / "data-000009.tar", ("a.cls", b"1"), ("b.png", png(1)), ("b.cls", b"1"))
    source = source_of(shards, label="cls")
    source.check()
    with pytest.raises(
        GanpipeError, match=r"data-000009\.tar: sample a has no \.png, .* \(it has \.cls\).*data\.unreadable"
    ):
        write_shards(settings_of(source="webdataset"), source, tmp_path / "out")
    manifest = write_shards(settings_of(source="webdataset", unreadable="skip"), source, tmp_path / "out")
    assert manifest.skipped == ("data-000009.tar: a",)
    assert sum(shard.num_samples for shard in manifest.shards) == 13
    with pytest.raises(GanpipeError, match=r"sample part/\d+ has no \.jpgg, which sources\.webdataset\.image names"):
        source_of(shards, image="jpgg").check()  # no sample of the shard has it: the setting is wrong


@pytest.mark.parametrize(
    ("members", "found"),
    [
        (("a.png", "a.cls", "b.png", "b.cls", "a.png", "a.cls"), ["a", "b", "a"]),  # another sample of that key
        (("a.png", "a.cls", "b.png", "b.cls", "a.json"), ["a", "b"]),
        (("a.png", "a.cls", "b.png", "b.cls", "a.png"), r"sample a has two members \.png; remove one"),
        (("a.png", "b.png", "a.png", "b.cls"), r"sample a has two members \.png; remove one"),
        (("a.png", "a.PNG", "a.cls"), r"sample a has two members \.png; remove or rename one"),
    ],
)
def test_keys_that_come_twice(members: tuple[str, ...], found: list[str] | str, tmp_path: Path) -> None:
    pack(tmp_path / "x.tar", *((name, b"1") for name in members))
    source = source_of(tmp_path, label="cls")
    if isinstance(found, list):
        assert [item.name for item in source.items()] == [f"x.tar: {key}" for key in found]
    else:
        with pytest.raises(GanpipeError, match=found):
            list(source.items())


def test_tars_that_cat_joined(tmp_path: Path) -> None:
    parts = [pack(tmp_path / f"{n}.tar", (f"{n}.png", png(n))).read_bytes() for n in range(3)]
    (tmp_path / "x.tar").write_bytes(b"".join(parts) + b"and a note")
    assert [item.name for item in source_of(tmp_path, "x.tar").items()] == [f"x.tar: {n}" for n in range(3)]


@pytest.mark.parametrize(
    ("begin", "says"),
    [
        (b"\x28\xb5\x2f\xfd", "packed by zstd: unpack it"),
        (b"BZh9", "packed by bzip2"),
        (b"\xfd7zXZ\0", "packed by xz"),
        (b"PK\3\4", r"is a zip file: unpack it, and pack a tar \(unzip"),
        (b"<!DOCTYPE html>", "begins like a web page"),
    ],
)
def test_what_is_no_tar_is_called_by_its_name(begin: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(begin.ljust(2000, b"x"))
    with pytest.raises(GanpipeError, match=rf"x\.tar: byte 0 .* is not a header of a tar; it .*{says}"):
        source_of(tmp_path).check()


@pytest.mark.parametrize("deep", [(), (0, 1)], ids=["images of 8 bits", "images of 16 bits, which are read twice"])
def test_members_that_are_not_taken_are_counted(
    deep: tuple[int, ...], tmp_path: Path, settings_of: MakeSettings
) -> None:
    members = [(f"{n}.{end}", b"1") for n in range(4) for end in ("cls", "json")]
    images = [(f"{n}.png", deep_png(n) if n in deep else png(n)) for n in range(4)]
    path = pack(tmp_path / "x.tar", *sorted([*members, *images]), ("README", b"x"))
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("4.png")
        link.type, link.linkname = tarfile.LNKTYPE, "3.png"
        archive.addfile(link)
    manifest = write_shards(settings_of(source="webdataset"), source_of(tmp_path, label="cls"), tmp_path / "out")
    assert [(one.kind, one.number, one.names) for one in manifest.left_out] == [
        (".json", 4, ("0.json", "1.json", "2.json")),
        ("files that belong to no sample", 1, ("README",)),
        ("links and devices in a tar", 1, ("4.png",)),
    ]


def test_classes_given(shards: Path, served: str) -> None:
    source = source_of(shards, label="cls", classes=["ant", "bee", "cat"])
    assert source.describe().classes == ("ant", "bee", "cat")
    assert [item.values.get("label") for item in source.items()][:4] == [0, 1, 2, 0]
    with pytest.raises(GanpipeError, match=rf"classes: not set; {served}/x\.tar is not on this machine"):
        source_of(None, f"{served}/x.tar", label="cls").describe()
    assert source_of(None, f"{served}/x.tar", label="cls", classes=10).describe().classes[-1] == "9"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": ".cls"}, r"sources\.webdataset\.label: got '\.cls'; expected an extension without its dot"),
        ({"classes": 0}, "expected a number from 1"),
        ({"classes": ["a", "a"]}, "differ from each other"),
        ({"shards": []}, "at least 1 item"),
    ],
)
def test_bad_settings(values: dict[str, Any], message: str) -> None:
    with pytest.raises(GanpipeError, match=message):
        parse(WebdatasetSettings, values, "sources.webdataset")


def test_fingerprint(shards: Path, served: str) -> None:
    for source in (source_of(shards, "*.tar"), source_of(None, f"{served}/data-{{000000,000001}}.tar")):
        before = source.fingerprint()
        assert source.fingerprint() == before
        write(shards / "data-000001.tar", *map(sample, range(30, 33)))
        assert source.fingerprint() != before
        write(shards / "data-000001.tar", *map(sample, range(4, 8)))
    local = source_of(shards, "*.tar")
    before = local.fingerprint()
    write(shards / "data-000007.tar", sample(99))
    assert local.fingerprint() != before
    with pytest.raises(GanpipeError, match=r"data-000003\.tar: HTTP 404"):
        source_of(None, f"{served}/data-000003.tar").fingerprint()
    memory = fsspec.filesystem("memory")
    memory.pipe("/fingerprint/x.tar", b"1")
    stored = source_of(None, "memory://fingerprint/x.tar")
    before = stored.fingerprint()
    memory.pipe("/fingerprint/x.tar", b"12")
    assert stored.fingerprint() != before


def test_the_names_of_json_members_are_free(tmp_path: Path) -> None:
    write(tmp_path / "x.tar", {"__key__": "k", "png": image(1), "meta.json": {"a.b": "dotted", "a": {"b": "nested"}}})
    (item,) = source_of(tmp_path, text="meta.json:a.b").items()
    assert item.values.get("text") == "dotted"
