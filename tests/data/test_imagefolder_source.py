"""Hugging Face's image folders: tables, class folders, split folders; every fault is named with file and line."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset

from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.settings import DataSettings
from ganpipe.data.sources.base import Pictures
from ganpipe.data.sources.imagefolder import Imagefolder, ImagefolderSettings
from ganpipe.errors import GanpipeError

Draw = Callable[..., Path]
MakeSettings = Callable[..., DataSettings]


def source_of(path: Path, **values: object) -> Imagefolder:
    return Imagefolder(ImagefolderSettings.model_validate({"path": str(path), **values}))


def jsonl(path: Path, *rows: object) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path, draw: Draw) -> Path:
    """Four images with a table of labels and captions."""
    for number in range(4):
        draw(tmp_path / "images" / f"{number}.png", number)
    (tmp_path / "images" / "metadata.csv").write_text(
        'file_name,label,caption\n0.png,cat,"A cat, sleeping"\n1.png,dog,A dog\n2.png,cat,Another cat\n3.png,ant,Tiny\n'
    )
    return tmp_path / "images"


def test_a_csv_table(folder: Path) -> None:
    source = source_of(folder, text_column="caption", licence="CC0")
    description = source.describe()
    assert list(description.fields) == ["image", "label", "text"]
    assert (description.classes, description.licence, description.num_images) == (("ant", "cat", "dog"), "CC0", 4)
    assert [(item.name, item.values.get("label"), item.values.get("text")) for item in source.items()] == [
        ("0.png", 1, "A cat, sleeping"),
        ("1.png", 2, "A dog"),
        ("2.png", 1, "Another cat"),
        ("3.png", 0, "Tiny"),
    ]
    assert pickle.loads(pickle.dumps(list(source.items()))) == list(source.items())  # noqa: S301 - made here


def test_a_jsonl_table_with_class_numbers(folder: Path) -> None:
    (folder / "metadata.csv").unlink()
    jsonl(
        folder / "metadata.jsonl",
        *({"file_name": f"{number}.png", "kind": [10, 9, 9, 2][number]} for number in range(4)),
    )
    source = source_of(folder, label_column="kind")
    assert source.describe().classes == ("2", "9", "10")  # by value, not by spelling
    assert [item.values.get("label") for item in source.items()] == [2, 1, 1, 0]


def test_the_shards_hold_labels_and_texts(folder: Path, tmp_path: Path, settings_of: MakeSettings) -> None:
    settings = settings_of(source="imagefolder", validation_fraction=0)
    manifest = write_shards(settings, source_of(folder, text_column="caption"), tmp_path / "out")
    url = str(tmp_path / "out" / manifest.shards[0].name)
    found = {sample["txt"]: sample["cls"] for sample in webdataset.WebDataset([url], shardshuffle=False).decode("rgb8")}
    assert found == {"A cat, sleeping": 1, "A dog": 2, "Another cat": 1, "Tiny": 0}


def test_what_is_left_out_is_counted_by_kind(folder: Path, draw: Draw) -> None:
    draw(folder / "more.png")
    (folder / "photo.cr2").write_bytes(b"raw")
    (folder / ".b.png").write_bytes(b"")
    source = source_of(folder)
    assert len(source.items()) == 4
    assert {(one.kind, one.number, one.names) for one in source.left_out()} == {
        ("images that no table names", 1, ("more.png",)),
        (".cr2", 1, ("photo.cr2",)),
        ("hidden", 1, (".b.png",)),
    }


def test_subsets_that_are_not_taken_are_counted(tmp_path: Path, draw: Draw) -> None:
    for number, subset in enumerate(("train", "test", "test")):
        draw(tmp_path / subset / f"{number}.png", number)
    source = source_of(tmp_path)
    assert len(source.items()) == 1
    (left_out,) = source.left_out()
    assert (left_out.kind, left_out.number) == ("images of subsets that are not taken", 2)


def test_a_table_without_labels_gives_none(folder: Path) -> None:
    jsonl(folder / "metadata.csv", 0)
    (folder / "metadata.csv").write_text("file_name\n0.png\n3.png\n")
    source = source_of(folder)
    assert source.describe().fields == {"image": Pictures()}
    assert [item.name for item in source.items()] == ["0.png", "3.png"]


def test_labels_can_be_left_out(folder: Path) -> None:
    assert source_of(folder, labels="none").describe().classes == ()


def test_without_a_table(class_folder: Path, flat_folder: Path) -> None:
    assert source_of(class_folder).describe().classes == ("a", "b", "c")
    assert source_of(flat_folder).describe().fields == {"image": Pictures()}
    with pytest.raises(GanpipeError, match=r"000\.png lies in no class folder; .*labels to none"):
        source_of(flat_folder, labels="subfolders").check()


def test_tables_in_subfolders_speak_for_what_is_below_them(tmp_path: Path, draw: Draw) -> None:
    for name in ("a", "b"):
        draw(tmp_path / name / "deep" / "1.png")
        (tmp_path / name / "metadata.csv").write_text(f"file_name,label\ndeep/1.png,{name}{name}\n")
    source = source_of(tmp_path)
    assert source.describe().classes == ("aa", "bb")
    assert [item.name for item in source.items()] == ["a/deep/1.png", "b/deep/1.png"]


@pytest.fixture
def split_folder(tmp_path: Path, draw: Draw) -> Path:
    """Twelve images for training, three for validation, two for tests, in two classes."""
    for number in range(17):
        subset = "train" if number < 12 else "val" if number < 15 else "test"
        draw(tmp_path / "splits" / subset / "ab"[number % 2] / f"{number:02d}.png", number)
    return tmp_path / "splits"


def test_split_folders_are_mixed_or_kept(split_folder: Path, tmp_path: Path, settings_of: MakeSettings) -> None:
    mixed = source_of(split_folder)
    assert mixed.describe().classes == ("a", "b")
    assert len(mixed.items()) == 15
    assert {item.split for item in mixed.items()} == {None}
    kept = source_of(split_folder, splits="keep")
    manifest = write_shards(settings_of(source="imagefolder", validation_fraction=0.5), kept, tmp_path / "out")
    assert [manifest.num_samples(split) for split in ("train", "validation")] == [12, 3]
    everything = source_of(split_folder, splits="keep", subsets=["train", "validation", "test"])
    assert [item.split for item in everything.items()].count("validation") == 5
    assert len(source_of(split_folder, subsets=["test"]).items()) == 2


def test_split_folders_with_tables(split_folder: Path) -> None:
    (split_folder / "train" / "metadata.csv").write_text("file_name,label\na/00.png,x\nb/01.png,y\n")
    (split_folder / "val" / "metadata.csv").write_text("file_name,label\na/12.png,z\n")
    (split_folder / "test" / "metadata.csv").write_text("this one is not read\n")
    source = source_of(split_folder, splits="keep")
    assert source.describe().classes == ("x", "y", "z")
    assert [item.split for item in source.items()] == ["train", "train", "validation"]


def test_a_class_may_be_called_train(tmp_path: Path, draw: Draw) -> None:
    for name in ("car", "train"):
        draw(tmp_path / name / "1.png")
    source = source_of(tmp_path)
    assert source.describe().classes == ("car", "train")
    with pytest.raises(GanpipeError, match=r"splits: keep, but .* is not made of folders train, .* \(car, train\)"):
        source_of(tmp_path, splits="keep").check()


def test_no_image_in_the_subsets(split_folder: Path) -> None:
    import shutil

    shutil.rmtree(split_folder / "test")
    with pytest.raises(GanpipeError, match="holds no image in test"):
        source_of(split_folder, subsets=["test"]).check()


def test_a_loose_image_beside_split_folders(split_folder: Path, draw: Draw) -> None:
    draw(split_folder / "loose.png")
    with pytest.raises(GanpipeError, match=r"loose\.png lies beside the folders test, train, val; move it into one"):
        source_of(split_folder).check()


BAD_CSV = {
    "parent": ("file_name,label\n../0.png,a\n", r"metadata\.csv:2: file_name '\.\./0\.png' leads out of the folder"),
    "inside parent": ("file_name,label\na/../../0.png,a\n", "leads out of the folder"),
    "absolute": ("file_name,label\n/etc/passwd,a\n", r"metadata\.csv:2: file_name '/etc/passwd' leads out"),
    "backslash": ("file_name,label\n..\\0.png,a\n", "leads out of the folder"),
    "missing file": (
        "file_name,label\n0.png,a\n9.png,a\n",
        r"metadata\.csv:3: file_name '9\.png': there is no",
    ),
    "duplicate": (
        "file_name,label\n0.png,a\n1.png,b\n0.png,a\n",
        r"metadata\.csv:4: file_name '0\.png': .*metadata\.csv:2 names it, too",
    ),
    "same file": ("file_name,label\n0.png,a\n./0.png,a\n", r"metadata\.csv:3: .*metadata\.csv:2 names it, too"),
    "no file_name": (
        "filename,label\n0.png,a\n",
        r"metadata\.csv:1: has no column 'file_name'; did you mean 'fi",
    ),
    "empty file_name": ("file_name,label\n,a\n", r"metadata\.csv:2: file_name is ''"),
    "no column": ("file_name,lable\n0.png,a\n", r"metadata\.csv:2: has no column 'label'; did you mean 'lable'"),
    "empty label": ("file_name,label\n0.png,a\n1.png,\n", r"metadata\.csv:3: label is ''; expected a class"),
    "short row": ("file_name,label\n0.png\n", r"metadata\.csv:2: 1 values, but 2 columns"),
    "columns twice": ("file_name,label,label\n0.png,a,b\n", r"metadata\.csv:1: a column is there twice"),
    "quotes": ('file_name,label\n0.png,"a\n', r"metadata\.csv: cannot be read"),
    "empty": ("", r"metadata\.csv:1: has no column 'file_name'"),
}


@pytest.mark.parametrize("kind", BAD_CSV)
def test_bad_csv(kind: str, folder: Path) -> None:
    text, message = BAD_CSV[kind]
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(GanpipeError, match=message) as caught:
        source_of(folder, labels="column").check()
    assert "\n" not in str(caught.value)


BAD_JSON = {
    "no json": ('{"file_name": "0.png", "label": 1}\n{"file_name": "1.png",\n', r"metadata\.jsonl:2: not JSON \("),
    "a list": ('["0.png"]\n', r"metadata\.jsonl:1: expected a JSON object, found list"),
    "no file_name": (
        '\n{"name": "0.png", "label": 1}\n',
        r"metadata\.jsonl:2: has no column 'file_name'; did",
    ),
    "no column": ('{"file_name": "0.png"}\n', r"metadata\.jsonl:1: has no column 'label'"),
    "number": ('{"file_name": 3, "label": 1}\n', r"metadata\.jsonl:1: file_name is 3; expected the path of an image"),
    "fraction": ('{"file_name": "0.png", "label": 0.5}\n', r"metadata\.jsonl:1: label is 0\.5; expected a class"),
    "null": ('{"file_name": "0.png", "label": null}\n', r"metadata\.jsonl:1: label is None; expected a class"),
    "text": ('{"file_name": "0.png", "label": 1, "caption": 5}\n', r"metadata\.jsonl:1: caption is 5; expected a text"),
    "no text": ('{"file_name": "0.png", "label": 1}\n', r"metadata\.jsonl:1: has no column 'caption'"),
    "bytes": ("\udcff\udcfe", r"metadata\.jsonl: cannot be read"),
    "empty": ("", "holds no image"),
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_bad_jsonl(kind: str, folder: Path) -> None:
    text, message = BAD_JSON[kind]
    (folder / "metadata.csv").unlink()
    (folder / "metadata.jsonl").write_text(text, errors="surrogateescape")
    with pytest.raises(GanpipeError, match=message) as caught:
        source_of(folder, labels="column", text_column="caption").check()
    assert "\n" not in str(caught.value)


def test_a_text_that_utf8_cannot_hold(folder: Path, tmp_path: Path, settings_of: MakeSettings) -> None:
    (folder / "metadata.csv").unlink()
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "caption": "\\ud800"}\n')
    source = source_of(folder, text_column="caption")
    with pytest.raises(GanpipeError, match=r"0\.png: text '\\ud800'; expected a text that UTF-8 can hold"):
        write_shards(settings_of(source="imagefolder"), source, tmp_path / "out")


def test_two_tables_for_one_folder(folder: Path) -> None:
    jsonl(folder / "metadata.jsonl", {"file_name": "0.png"})
    with pytest.raises(GanpipeError, match=r"images: holds both metadata\.csv and metadata\.jsonl; remove one"):
        source_of(folder).check()


def test_a_parquet_table_is_named(flat_folder: Path) -> None:
    (flat_folder / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(GanpipeError, match=r"metadata\.parquet: not read here; write it as metadata\.csv or \.jsonl"):
        source_of(flat_folder).check()


def test_a_parquet_table_beside_a_table_elsewhere_is_named(split_folder: Path) -> None:
    (split_folder / "train" / "metadata.csv").write_text("file_name,label\na/00.png,x\n")
    (split_folder / "val" / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(GanpipeError, match=r"val/metadata\.parquet: not read here; write it as metadata\.csv"):
        source_of(split_folder).check()
    assert len(source_of(split_folder, subsets=["train"]).items()) == 1


def test_a_table_of_parquet_files_only(tmp_path: Path) -> None:
    (tmp_path / "part.parquet").write_bytes(b"PAR1")
    (tmp_path / "metadata.csv").write_text("file_name,label\npart.parquet,x\n")
    with pytest.raises(GanpipeError, match=r"metadata\.csv:2: file_name 'part\.parquet': is no image; images within"):
        source_of(tmp_path).check()


def test_a_parquet_file_among_images(folder: Path) -> None:
    (folder / "part.parquet").write_bytes(b"PAR1")
    assert len(source_of(folder).items()) == 4  # no table names it
    (folder / "metadata.csv").write_text("file_name,label\n0.png,a\npart.parquet,x\n")
    with pytest.raises(GanpipeError, match=r"metadata\.csv:3: file_name 'part\.parquet': is no image; images within"):
        source_of(folder).check()


def test_a_wish_for_columns_without_a_table(class_folder: Path) -> None:
    with pytest.raises(GanpipeError, match=r"labels: column needs a table, but .* has no metadata\.csv"):
        source_of(class_folder, labels="column").check()
    with pytest.raises(GanpipeError, match=r"text_column: caption needs a table"):
        source_of(class_folder, text_column="caption").check()


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(GanpipeError, match=r"sources\.imagefolder\.path: .*/absent does not exist"):
        source_of(tmp_path / "absent").check()
    with pytest.raises(GanpipeError, match=r"sources\.imagefolder\.path: not set"):
        Imagefolder(ImagefolderSettings()).check()


def test_a_marked_utf8_table_and_lines_of_windows(folder: Path) -> None:
    (folder / "metadata.csv").write_bytes("\ufefffile_name,label\r\n0.png,Käfer\r\n".encode())
    assert source_of(folder).describe().classes == ("Käfer",)


def test_fingerprint(folder: Path, draw: Draw) -> None:
    source = source_of(folder)
    seen = [source.fingerprint()]
    assert source.fingerprint() == seen[0] == source_of(folder).fingerprint()
    draw(folder / "new" / "9.png")
    seen.append(source.fingerprint())
    (folder / "metadata.csv").write_text("file_name\n0.png\n")
    seen.append(source.fingerprint())
    os.utime(folder / "0.png", ns=(1, 1))
    seen.append(source.fingerprint())
    (folder / "new" / "9.png").unlink()
    seen.append(source.fingerprint())
    (folder / "notes.txt").write_text("no input")
    assert source.fingerprint() == seen[-1]
    assert len(set(seen)) == len(seen)
