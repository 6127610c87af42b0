"""Your own images: flat or in class folders, and what is wrong with them."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.sources.base import Pictures
from ganpipe.data.sources.folder import Folder, FolderSettings
from ganpipe.errors import GanpipeError

Draw = Callable[..., Path]
MakeFolder = Callable[..., Folder]


def test_flat(flat_folder: Path, folder_source: MakeFolder) -> None:
    source = folder_source(flat_folder, licence="mine")
    description = source.describe()
    assert (list(description.fields), description.classes, description.licence) == (["image"], (), "mine")
    items = list(source.items())
    assert [item.name for item in items] == [f"{number:03d}.png" for number in range(60)]
    assert all(item.values.get("label") is None for item in items)


def test_class_folders(class_folder: Path, folder_source: MakeFolder) -> None:
    source = folder_source(class_folder)
    description = source.describe()
    assert (list(description.fields), description.classes) == (["image", "label"], ("a", "b", "c"))
    items = list(source.items())
    assert len(items) == 36
    assert all(item.name.startswith("abc"[item.values.get("label")]) for item in items)
    assert [item.name for item in items] == sorted(item.name for item in items)


def test_labels_can_be_left_out(class_folder: Path, folder_source: MakeFolder) -> None:
    assert folder_source(class_folder, labels="none").describe().fields == {"image": Pictures()}


def test_nested_files_belong_to_the_outer_class(tmp_path: Path, draw: Draw, folder_source: MakeFolder) -> None:
    draw(tmp_path / "cats" / "young" / "1.png")
    draw(tmp_path / "dogs" / "2.png")
    assert [(item.name, item.values.get("label")) for item in folder_source(tmp_path).items()] == [
        ("cats/young/1.png", 0),
        ("dogs/2.png", 1),
    ]


def test_only_images_count(tmp_path: Path, draw: Draw, folder_source: MakeFolder) -> None:
    draw(tmp_path / "UPPER.PNG")
    draw(tmp_path / "photo.jpeg")
    draw(tmp_path / ".hidden.png")
    draw(tmp_path / "__MACOSX" / "x.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "figure.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0")
    assert [item.name for item in folder_source(tmp_path).items()] == ["UPPER.PNG", "photo.jpeg"]


def counted(source: Folder) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(one.kind, one.number, one.names) for one in source.left_out()]


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path, draw: Draw, folder_source: MakeFolder) -> None:
    draw(tmp_path / "a" / "1.png")
    for number in range(5):
        (tmp_path / "a" / f"{number}.CR2").write_bytes(b"raw")
    for name in ("photos.zip", "README", "deep/er/notes.txt", "frame.0001", "Thumbs.db", ".gitkeep", ".DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"PK..")
    for name in (".hidden.png", "a/._1.png", "__MACOSX/a/._1.png", ".hidden/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "dogs").symlink_to("/no/such/folder")
    (tmp_path / "notes.md").symlink_to("gone.md")
    source = folder_source(tmp_path)
    assert [item.name for item in source.items()] == ["a/1.png"]
    assert counted(source) == [
        (".cr2", 5, ("a/0.CR2", "a/1.CR2", "a/2.CR2")),
        ("broken link", 2, ("dogs", "notes.md")),
        ("hidden", 2, (".hidden.png", "a/._1.png")),
        ("without extension", 2, ("README", "frame.0001")),
        (".txt", 1, ("deep/er/notes.txt",)),
        (".zip", 1, ("photos.zip",)),
    ]


def test_kinds_without_end_are_counted_together(tmp_path: Path, draw: Draw, folder_source: MakeFolder) -> None:
    draw(tmp_path / "1.png")
    for number in range(50):
        (tmp_path / f"x.e{number:02d}").write_text("x")
    source = folder_source(tmp_path)
    source.check()
    assert [(kind, number) for kind, number, _ in counted(source)][:1] == [("other", 30)]
    assert len(counted(source)) == 21


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "webp", "tiff", "bmp", "avif", "jpeg2000"])
def test_images_without_extension_are_known_by_their_content(
    kind: str, tmp_path: Path, draw: Draw, folder_source: MakeFolder
) -> None:
    draw(tmp_path / "IMG_0001", format=kind)
    draw(tmp_path / "frame.0002", 1, format=kind)
    (tmp_path / "LICENSE").write_text("BM is no bitmap, P3 no pixmap, and #define no XBM")
    (tmp_path / "empty").touch()
    source = folder_source(tmp_path)
    assert [item.name for item in source.items()] == ["IMG_0001", "frame.0002"]
    assert counted(source) == [("without extension", 2, ("LICENSE", "empty"))]


def heic(tmp_path: Path, number: int = 0) -> Path:
    pillow_heif = pytest.importorskip("pillow_heif")
    image = Image.new("RGB", (64, 64), (200, 40 + number, 90))
    path = tmp_path / f"{number}.heic"
    pillow_heif.from_pillow(image).save(path, quality=100)
    return path


def test_heic(tmp_path: Path, folder_source: MakeFolder, settings_of: Callable[..., DataSettings]) -> None:
    heic(tmp_path)
    heic(tmp_path, 1).rename(tmp_path / "IMG_0001")
    source = folder_source(tmp_path)
    manifest = write_shards(settings_of(validation_fraction=0), source, tmp_path / "out")
    assert manifest.num_samples("train") == 2
    assert manifest.left_out == ()
    middle = open_dataset(tmp_path / "out", "train").rows(np.arange(2))["image"][:, :, 8, 8].mean(axis=0)
    np.testing.assert_allclose(middle, (200, 40.5, 90), atol=3)


INGEST_WITHOUT = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "pillow_heif" else find(name, package)
from ganpipe.cli import main
sys.exit(main(["ingest"]))
"""


def test_heic_without_its_library_is_named(tmp_path: Path, draw: Draw) -> None:
    for number in range(3):
        draw(tmp_path / "images" / f"{number}.jpg", number)
    for name in ("a.heic", "b.HEIC"):
        (tmp_path / "images" / name).write_bytes(b"\0\0\0\x18ftypheic")
    draw(tmp_path / "images" / "IMG_0001", 7, format="jpeg")
    (tmp_path / "params.yaml").write_text(
        "data: {source: folder, validation_fraction: 0}\nsources: {folder: {path: images}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", INGEST_WITHOUT], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split(": ")[1][:7]) == (0, "4 train"), done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("decode ")]
    assert lines[-2:] == [
        "left out 2, listed in artifacts/shards/manifest.json:",
        "  2 .heic (a.heic, b.HEIC); `pip install pillow-heif` to read them",
    ]
    manifest = json.loads((tmp_path / "artifacts" / "shards" / "manifest.json").read_text())
    assert manifest["left_out"] == [{"kind": ".heic", "number": 2, "names": ["a.heic", "b.HEIC"]}]


def test_what_is_left_out_is_no_part_of_the_dataset(
    flat_folder: Path, folder_source: MakeFolder, tmp_path: Path, settings_of: Callable[..., DataSettings]
) -> None:
    before = write_shards(settings_of(), folder_source(flat_folder), tmp_path / "out")
    assert "left_out" not in (tmp_path / "out" / "manifest.json").read_text()
    (flat_folder / "notes.txt").write_text("x")
    after = write_shards(settings_of(), folder_source(flat_folder), tmp_path / "out")
    assert [one.kind for one in after.left_out] == [".txt"]
    assert read_manifest(tmp_path / "out") == after
    assert (after.digest, after.shards) == (before.digest, before.shards)


def test_loose_images_beside_class_folders(class_folder: Path, draw: Draw, folder_source: MakeFolder) -> None:
    draw(class_folder / "loose.png")
    with pytest.raises(
        GanpipeError, match=r"loose\.png lies in no class folder, but a/000\.png does; .*labels to none"
    ):
        folder_source(class_folder).check()
    assert len(list(folder_source(class_folder, labels="none").items())) == 37


def test_links_are_followed_but_not_in_circles(tmp_path: Path, draw: Draw, folder_source: MakeFolder) -> None:
    draw(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "images")
    assert [item.name for item in folder_source(tmp_path / "images").items()] == ["linked/1.png"]


def test_names_that_are_not_utf8(tmp_path: Path, draw: Draw, folder_source: MakeFolder) -> None:
    plain = draw(tmp_path / "plain.png")
    os.rename(os.fsencode(plain), os.fsencode(tmp_path) + b"/caf\xe9.png")
    (item,) = folder_source(tmp_path).items()
    assert item.name == r"caf\xe9.png"
    item.name.encode()
    assert item.images["image"].read()


def test_items_travel_to_other_processes(class_folder: Path, folder_source: MakeFolder) -> None:
    items = list(folder_source(class_folder).items())
    assert pickle.loads(pickle.dumps(items)) == items  # noqa: S301 - made here


def test_empty(tmp_path: Path, folder_source: MakeFolder) -> None:
    with pytest.raises(GanpipeError, match=r"sources\.folder\.path: .* holds no image"):
        folder_source(tmp_path).check()
    (tmp_path / "photos.zip").write_text("no image either")
    with pytest.raises(GanpipeError, match=r"holds no image .*, but 1 \.zip \(photos\.zip\); unpack them"):
        folder_source(tmp_path).check()


def test_absent(tmp_path: Path, folder_source: MakeFolder) -> None:
    with pytest.raises(GanpipeError, match=r"sources\.folder\.path: .*/absent does not exist"):
        folder_source(tmp_path / "absent").check()


def test_a_file_in_place_of_a_folder(tmp_path: Path, draw: Draw, folder_source: MakeFolder) -> None:
    with pytest.raises(GanpipeError, match="is a file, not a folder"):
        folder_source(draw(tmp_path / "1.png")).check()


def test_path_not_set() -> None:
    with pytest.raises(GanpipeError, match=r"sources\.folder\.path: not set"):
        Folder(FolderSettings()).check()


def test_fingerprint(class_folder: Path, draw: Draw, folder_source: MakeFolder) -> None:
    source = folder_source(class_folder)
    seen = [source.fingerprint()]
    assert source.fingerprint() == seen[0] == folder_source(class_folder).fingerprint()
    added = draw(class_folder / "a" / "new.png", 77)
    seen.append(source.fingerprint())
    os.utime(added, ns=(1, 1))
    seen.append(source.fingerprint())
    added.unlink()
    assert source.fingerprint() == seen[0]
    (class_folder / "a" / "gone.png").symlink_to("nowhere")
    seen.append(source.fingerprint())
    assert len(set(seen)) == len(seen)
    with pytest.raises(GanpipeError, match="does not exist"):
        folder_source(class_folder / "absent").fingerprint()
