"""Classes: each keeps a training image, and what is odd about them is said before training."""

from __future__ import annotations

import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from ganpipe.data.ingest import class_counts
from ganpipe.data.ingest.shards import read_manifest, split_of, write_shards
from ganpipe.data.settings import DataSettings
from ganpipe.data.sources.folder import Folder
from ganpipe.data.sources.imagefolder import Imagefolder, ImagefolderSettings
from ganpipe.data.sources.webdataset import Webdataset, WebdatasetSettings

Draw = Callable[..., Path]
MakeFolder = Callable[..., Folder]
MakeSettings = Callable[..., DataSettings]
Capture = pytest.CaptureFixture[str]


def labels_of(folder: Path) -> dict[str, list[int]]:
    """Labels of the samples by split."""
    found: dict[str, list[int]] = {"train": [], "validation": []}
    for shard in read_manifest(folder).shards:
        with tarfile.open(folder / shard.name) as archive:
            for member in archive:
                if member.name.endswith(".cls"):
                    found[shard.split].append(int(archive.extractfile(member).read()))  # type: ignore[union-attr]
    return found


def drawn(draw: Draw, folder: Path, split: str, number: int, first: int = 0) -> list[Path]:
    """So many images in `folder` whose contents belong to that split at a fraction of 0.5."""
    paths: list[Path] = []
    for attempt in range(first, first + 100):
        path = draw(folder / f"{attempt:03d}.png", attempt)
        if len(paths) < number and split_of([path.read_bytes()], 0.5) == split:
            paths.append(path)
        else:
            path.unlink()
        if len(paths) == number:
            return paths
    raise AssertionError(f"not {number} images of {split}")


def warnings_of(capsys: Capture) -> list[str]:
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    return [line.rpartition("warning: ")[2] for line in lines if "warning: " in line]


def test_each_class_keeps_a_training_image(
    tmp_path: Path, draw: Draw, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    images = tmp_path / "images"
    held_out = drawn(draw, images / "all_held_out", "validation", 3)
    shutil.copy(held_out[0], images / "all_held_out" / "copy.png")
    drawn(draw, images / "both", "train", 1, first=100)
    drawn(draw, images / "both", "validation", 2, first=200)
    settings = settings_of(validation_fraction=0.5)
    made = [write_shards(settings, folder_source(images), tmp_path / str(run), run + 1).digest for run in range(2)]
    assert made[0] == made[1]
    labels = labels_of(tmp_path / "0")
    assert labels["train"].count(0) in (1, 2)  # one image, and its copy where it has one
    assert labels["train"].count(0) + labels["validation"].count(0) == 4
    assert (labels["train"].count(1), labels["validation"].count(1)) == (1, 2)  # as the content says


def test_copies_of_a_moved_image_go_along(
    tmp_path: Path, draw: Draw, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    (image,) = drawn(draw, tmp_path / "images" / "a", "validation", 1)
    shutil.copy(image, tmp_path / "images" / "a" / "again.png")
    drawn(draw, tmp_path / "images" / "b", "train", 2, first=100)
    shutil.copy(image, tmp_path / "images" / "b" / "again.png")
    settings = settings_of(validation_fraction=0.5)
    manifest = write_shards(settings, folder_source(tmp_path / "images"), tmp_path / "out")
    assert (manifest.num_samples("train"), manifest.num_samples("validation")) == (5, 0)


def test_a_split_that_the_source_gives_stays(
    tmp_path: Path, draw: Draw, settings_of: MakeSettings, capsys: Capture
) -> None:
    for number in range(12):
        draw(tmp_path / "images" / "train" / "a" / f"{number}.png", number)
    draw(tmp_path / "images" / "val" / "b" / "1.png", 50)
    source = Imagefolder(ImagefolderSettings(path=str(tmp_path / "images"), splits="keep"))
    write_shards(settings_of(source="imagefolder"), source, tmp_path / "out")
    assert labels_of(tmp_path / "out") == {"train": [0] * 12, "validation": [1]}
    assert warnings_of(capsys) == [
        "1 of 2 classes have no training image, because the source keeps all images of these classes for validation: "
        "'b'"
    ]


def test_classes_are_printed_with_their_images(
    class_folder: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings, capsys: Capture
) -> None:
    write_shards(settings_of(validation_fraction=0), folder_source(class_folder), tmp_path / "out")
    told = capsys.readouterr()
    assert [line.split() for line in told.out.splitlines()[1:]] == [[name, "12", "0"] for name in "abc"]
    assert "warning" not in told.err


def test_without_labels_nothing_is_said(
    flat_folder: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings, capsys: Capture
) -> None:
    write_shards(settings_of(), folder_source(flat_folder), tmp_path / "out")
    told = capsys.readouterr()
    assert told.out == ""
    assert "warning" not in told.err


def test_of_many_classes_the_smallest_and_the_largest_are_printed() -> None:
    names = [f"class {number}" for number in range(1000)]
    lines = class_counts.table(names, {number: 1000 + number for number in range(1000)}, {})
    assert lines[0].startswith("1,000 classes, ")
    assert [line.split()[1:3] for line in lines[1:]] == [
        [str(number), f"{1000 + number:,}"] for number in (*range(5), *range(995, 1000))
    ]


def shards_with_labels(path: Path, labels: list[int], draw: Draw) -> Webdataset:
    path.mkdir()
    with webdataset.TarWriter(str(path / "a.tar")) as writer:
        for number, label in enumerate(labels):
            image = np.asarray(Image.open(draw(path / "image.png", number)))
            writer.write({"__key__": f"{number:04d}", "png": image, "cls": label})
    return Webdataset(WebdatasetSettings(path=str(path), label="cls"))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([3, 7, 1000], "998 of 1,001 classes have no image: '0', '1', '2', '4', '5', ...; a GAN with labels is built"),
        ([1, 2, 3], "class 0 ('0') has no image: the labels seem to begin at 1; number them from 0"),
        ([0], "there is one class only, '0': its label says nothing"),
    ],
)
def test_class_numbers_that_leave_places_empty(
    labels: list[int], says: str, tmp_path: Path, draw: Draw, settings_of: MakeSettings, capsys: Capture
) -> None:
    source = shards_with_labels(tmp_path / "tars", labels * 12, draw)
    write_shards(settings_of(source="webdataset", validation_fraction=0), source, tmp_path / "out")
    (line,) = warnings_of(capsys)
    assert line.startswith(says)


def test_folders_of_splits_are_no_classes(
    tmp_path: Path, draw: Draw, folder_source: MakeFolder, settings_of: MakeSettings, capsys: Capture
) -> None:
    for number in range(60):
        subset = ("train", "test")[number % 2]
        draw(tmp_path / "images" / subset / ("cat", "dog")[number // 2 % 2] / f"{number}.png", number)
    source = folder_source(tmp_path / "images")
    write_shards(settings_of(validation_fraction=0), source, tmp_path / "out")
    (line,) = warnings_of(capsys)
    assert line.startswith("'test', 'train' are classes, but look like splits")
    # What it advises gives the classes.
    assert "set data.source to imagefolder and sources.imagefolder.path to the folder above them" in line
    advised = Imagefolder(ImagefolderSettings(path=str(tmp_path / "images")))
    assert advised.describe().classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("Cat", "cat ", "dog"), ["the classes 'Cat', 'cat ' differ by case or spaces only"]),
        (("1", "10", "2"), ["the classes' names are numbers, but not their own: class 0 is called '1'"]),
        (("0", "1", "2"), []),
        (("car", "train"), []),  # a train is a class, too
        (("a", "b"), []),
        ((), []),
    ],
)
def test_odd_names(names: tuple[str, ...], says: list[str]) -> None:
    found = list(class_counts.name_warnings(names))
    assert len(found) == len(says)
    assert all(line.startswith(start) for line, start in zip(found, says, strict=True))


def test_a_limit_is_named_where_it_empties_a_class(
    class_folder: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings, capsys: Capture
) -> None:
    write_shards(settings_of(limit=2, validation_fraction=0), folder_source(class_folder), tmp_path / "out")
    assert re.match(r"[12] of 3 classes have no image among the 2 of data\.limit: '", warnings_of(capsys)[0])


def test_small_classes_are_named_and_do_not_steer_the_terminal() -> None:
    (line,) = class_counts.count_warnings(("a\x1b[2J", "b"), {0: 3, 1: 50}, {})
    assert line == "1 of 2 classes have fewer than 10 training images: a\\x1b[2J (3)"
