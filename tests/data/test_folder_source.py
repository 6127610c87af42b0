"""Your own images: flat or in class folders, and what is wrong with them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from ganpipe.data.sources.folder import Folder, FolderSettings
from ganpipe.errors import GanpipeError

Draw = Callable[..., Path]
MakeFolder = Callable[..., Folder]


def test_flat(flat_folder: Path, folder_source: MakeFolder) -> None:
    source = folder_source(flat_folder, licence="mine")
    description = source.describe()
    assert (description.fields, description.classes, description.licence) == (("image",), (), "mine")
    items = list(source.items())
    assert [item.name for item in items] == [f"{number:03d}.png" for number in range(60)]
    assert all(item.label is None for item in items)


def test_class_folders(class_folder: Path, folder_source: MakeFolder) -> None:
    source = folder_source(class_folder)
    description = source.describe()
    assert (description.fields, description.classes) == (("image", "label"), ("a", "b", "c"))
    items = list(source.items())
    assert len(items) == 36
    assert all(item.name.startswith("abc"[item.label]) for item in items)
    assert [item.name for item in items] == sorted(item.name for item in items)


def test_labels_can_be_left_out(class_folder: Path, folder_source: MakeFolder) -> None:
    assert folder_source(class_folder, labels="none").describe().fields == ("image",)


def test_nested_files_belong_to_the_outer_class(tmp_path: Path, draw: Draw, folder_source: MakeFolder) -> None:
    draw(tmp_path / "cats" / "young" / "1.png")
    draw(tmp_path / "dogs" / "2.png")
    assert [(item.name, item.label) for item in folder_source(tmp_path).items()] == [
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


def test_loose_images_beside_class_folders(class_folder: Path, draw: Draw, folder_source: MakeFolder) -> None:
    draw(class_folder / "loose.png")
    with pytest.raises(GanpipeError, match=r"loose\.png lies in no class folder, a/000\.png does; .*labels to none"):
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
    (tmp_path / "readme.txt").write_text("no image either")
    with pytest.raises(GanpipeError, match="holds no image"):
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
