"""Parquet files of encoded images, as Hugging Face's datasets are stored: local and from a real HTTP server."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_server import serve
from PIL import Image

from ganpipe.data.access.host_cache import host_cache
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.sources.parquet import Parquet, ParquetSettings
from ganpipe.errors import GanpipeError
from ganpipe.section import parse

MakeSettings = Callable[..., DataSettings]


def source_of(path: Path | None, *files: str, **values: Any) -> Parquet:
    given = {"path": str(path) if path else None, **({"files": list(files)} if files else {}), **values}
    return Parquet(ParquetSettings.model_validate(given))


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def write(
    path: Path, columns: dict[str, list[Any]], metadata: dict[bytes, bytes] | None = None, **options: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata), path, **options)
    return path


def as_hugging_face(path: Path, numbers: range, names: list[str] | None = None) -> Path:
    """As its `datasets` writes: pairs of bytes and path, numbers of classes, their names in the metadata."""
    features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    images = [{"bytes": png(number), "path": f"{number}.png"} for number in numbers]
    columns = {"image": images, "label": [number % 3 for number in numbers], "caption": [f"the {n}th" for n in numbers]}
    return write(path, columns, metadata if names else None, row_group_size=3)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Two files with 12 and 8 rows."""
    as_hugging_face(tmp_path / "in" / "train-00000.parquet", range(12), ["ant", "bee", "cat"])
    as_hugging_face(tmp_path / "in" / "train-00001.parquet", range(12, 20), ["ant", "bee", "cat"])
    return tmp_path / "in"


@pytest.fixture
def served(tables: Path) -> Iterator[str]:
    """The URL under which the files are served."""
    with serve(tables) as url:
        yield url


def test_hugging_faces_files(tables: Path) -> None:
    source = source_of(tables, label="label", text="caption")
    source.check()
    description = source.describe()
    assert (list(description.fields), description.classes) == (["image", "label", "text"], ("ant", "bee", "cat"))
    assert description.num_images == 20
    items = list(source.items())
    assert [item.name for item in items[11:13]] == ["train-00000.parquet: row 11", "train-00001.parquet: row 0"]
    assert [item.values["label"] for item in items] == [number % 3 for number in range(20)]
    assert items[13].values["text"] == "the 13th"
    assert [item.images["image"].read() for item in items] == [png(number) for number in range(20)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (["b", "a", "b"], None, (("a", "b"), [1, 0, 1])),
        ([2, 0, 2], None, (("0", "1", "2"), [2, 0, 2])),
        ([1, 0, 1], ["no", "yes"], (("no", "yes"), [1, 0, 1])),
        (["yes", "no", "yes"], ["no", "yes"], (("no", "yes"), [1, 0, 1])),
        ([1, 0, 1], 4, (("0", "1", "2", "3"), [1, 0, 1])),
    ],
)
def test_classes(tmp_path: Path, labels: list[Any], classes: Any, expected: tuple[tuple[str, ...], list[int]]) -> None:
    write(tmp_path / "a.parquet", {"picture": [png(n) for n in range(3)], "kind": labels})
    source = source_of(tmp_path, image="picture", label="kind", classes=classes)
    source.check()
    assert source.describe().classes == expected[0]
    assert [item.values["label"] for item in source.items()] == expected[1]


@pytest.mark.parametrize("place", ["local", "remote"])
def test_ingested(tables: Path, served: str, tmp_path: Path, settings_of: MakeSettings, place: str) -> None:
    if place == "local":
        source = source_of(tables, label="label")
    else:
        urls = f"{served}/train-{{00000..00001}}.parquet"
        source = source_of(None, urls, label="label", classes=["ant", "bee", "cat"])
        source.check()
    write_shards(settings_of(source="parquet", image_size=20), source, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert sum(manifest.num_samples(split) for split in manifest.splits) == 20
    dataset = open_dataset(tmp_path / "out", "train")
    rows = dataset.rows(np.arange(len(dataset)))
    originals = {np.asarray(Image.open(io.BytesIO(png(number)))).tobytes(): number % 3 for number in range(20)}
    found = [originals[image.transpose(1, 2, 0).tobytes()] for image in rows["image"]]
    assert found == rows["label"].tolist()
    assert not list((host_cache() / "parquet").glob("*"))  # nothing of what was fetched is left


IMAGES = [png(0), png(1)]
FAULTS: list[tuple[dict[str, list[Any]], dict[str, Any], str]] = [
    (
        {"img": IMAGES},
        {},
        r"a\.parquet: has no column 'image', which sources\.parquet\.image names; did you mean",
    ),
    (
        {"image": ["x", "y"]},
        {},
        r"the column 'image', which sources\.parquet\.image names, holds string; expected en",
    ),
    ({"image": [1, 2]}, {}, r"holds int64; expected encoded images as bytes"),
    ({"image": [{"path": "x"}, {"path": "y"}]}, {}, r"holds struct<path: string>; expected encoded images"),
    ({"image": IMAGES}, {"label": "label"}, r"has no column 'label', which sources\.parquet\.label names"),
    ({"image": IMAGES, "label": [0.5, 1.0]}, {"label": "label"}, r"row 0: label is 0\.5; expected a class"),
    ({"image": IMAGES, "label": [0, None]}, {"label": "label"}, r"row 1: label is None; expected a class"),
    ({"image": IMAGES, "label": [True, False]}, {"label": "label"}, r"row 0: label is True; expected a class"),
    (
        {"image": IMAGES, "label": ["a", "c"]},
        {"label": "label", "classes": ["a", "b"]},
        r"row 1: label is 'c', whi",
    ),
    (
        {"image": IMAGES, "label": [0, 7]},
        {"label": "label", "classes": 3},
        r"row 1: label is '7', which is none",
    ),
    ({"image": IMAGES, "label": ["a", "b" * 201]}, {"label": "label"}, r"row 1: label has 201 characters; the name of"),
    ({"image": IMAGES, "text": ["a", None]}, {"text": "text"}, r"row 1: text is None; expected a text"),
]


@pytest.mark.parametrize(("columns", "settings", "text"), FAULTS)
def test_faults_are_found_before_any_image_is_read(
    tmp_path: Path, columns: dict[str, list[Any]], settings: dict[str, Any], text: str
) -> None:
    write(tmp_path / "a.parquet", columns)
    with pytest.raises(GanpipeError, match=text):
        source_of(tmp_path, **settings).check()


def test_files_that_are_no_parquet_or_damaged(tables: Path) -> None:
    path = tables / "train-00001.parquet"
    content = path.read_bytes()
    for damaged in (b"", b"PAR1", content[:-40], b"text" * 100):
        path.write_bytes(damaged)
        with pytest.raises(GanpipeError, match=r"train-00001\.parquet: not a Parquet file"):
            source_of(tables).check()
    path.write_bytes(content[:200] + bytes(3000) + content[3200:])
    with pytest.raises(GanpipeError, match=r"train-00001\.parquet: damaged after row"):
        list(source_of(tables).items())


@pytest.mark.parametrize(
    ("path", "files", "text"),
    [
        (None, [], r"sources\.parquet\.path: not set; it is the folder"),
        ("missing", [], r"sources\.parquet\.path: .*missing does not exist"),
        (".", ["b*.parquet"], r"sources\.parquet\.files: 'b\*\.parquet' matches no file"),
        (".", ["x.parquet"], r"sources\.parquet\.files: .*x\.parquet: there is no such file"),
        (".", ["../x.parquet"], r"'../x\.parquet' leads out of sources\.parquet\.path"),
    ],
)
def test_files_that_are_not_there(tmp_path: Path, path: str | None, files: list[str], text: str) -> None:
    with pytest.raises(GanpipeError, match=text):
        source_of(tmp_path / path if path else None, *files).check()


def test_urls_need_the_classes(served: str) -> None:
    with pytest.raises(GanpipeError, match=r"sources\.parquet\.classes: not set; http://.* is not on this machine"):
        source_of(None, f"{served}/train-00000.parquet", label="label").describe()
    with pytest.raises(GanpipeError, match=r"train-00009\.parquet: HTTP 404"):
        list(source_of(None, f"{served}/train-00009.parquet").items())


@pytest.mark.parametrize("unreadable", ["error", "skip"])
def test_rows_without_an_image(tmp_path: Path, settings_of: MakeSettings, unreadable: str) -> None:
    images = [{"bytes": png(0), "path": None}, {"bytes": None, "path": "1.png"}, None, {"bytes": png(3), "path": None}]
    write(tmp_path / "in" / "a.parquet", {"image": images})
    settings = settings_of(source="parquet", unreadable=unreadable, validation_fraction=0.0)
    source = source_of(tmp_path / "in")
    source.check()
    if unreadable == "error":
        with pytest.raises(GanpipeError, match=r"row 1 names the file '1\.png' and does not hold its content"):
            write_shards(settings, source, tmp_path / "out")
    else:
        manifest = write_shards(settings, source, tmp_path / "out")
        assert manifest.num_samples("train") == 2
        assert manifest.skipped == ("a.parquet: row 1", "a.parquet: row 2")


def test_the_fingerprint_follows_the_files(tables: Path) -> None:
    before = source_of(tables).fingerprint()
    assert source_of(tables).fingerprint() == before
    as_hugging_face(tables / "train-00002.parquet", range(20, 22))
    assert source_of(tables).fingerprint() != before


@pytest.mark.parametrize("values", [{"classes": []}, {"classes": ["a", "a"]}, {"classes": 0}, {"files": []}])
def test_settings_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(GanpipeError, match=r"sources\.parquet\."):
        parse(ParquetSettings, values, prefix="sources.parquet")
