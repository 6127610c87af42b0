"""What ingest tells of its images: formats, what was done, duplicates, blank images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling

from ganpipe.data import sources
from ganpipe.data.images.facts import Facts, facts_of
from ganpipe.data.ingest import data_report
from ganpipe.data.ingest.alike import equal_pairs, near_pairs
from ganpipe.data.ingest.originals import Originals, done_to
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import Manifest

RANDOM = np.random.default_rng(0)


def photo(side: int = 64, channels: int = 3) -> np.ndarray:
    """Soft colours that are no other photo's, uint8, (side, side, C)."""
    small = Image.fromarray(RANDOM.integers(0, 256, (6, 6, 3), np.uint8)).resize((side, side), Resampling.BICUBIC)
    return np.asarray(small if channels == 3 else small.convert("L"))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# -- facts


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(Image.new("RGB", (30, 20)), "JPEG"), Facts("JPEG", "RGB", 8, 30, 20)),
        (encoded(Image.new("RGBA", (8, 9)), "PNG"), Facts("PNG", "RGBA", 8, 8, 9, has_transparency=True)),
        (encoded(Image.new("1", (8, 9)), "PNG"), Facts("PNG", "1", 1, 8, 9)),
        (encoded(Image.fromarray(np.zeros((5, 7), np.uint16)), "PNG"), Facts("PNG", "I;16", 16, 7, 5)),
        (encoded(Image.fromarray(np.zeros((5, 7), np.float32)), "TIFF"), Facts("TIFF", "F", 32, 7, 5)),
        (b"no image at all", None),
        (b"", None),
    ],
)
def test_an_image_says_what_it_is(content: bytes, expected: Facts | None) -> None:
    assert facts_of(content) == expected


def test_an_upright_image_has_its_sides_exchanged() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    facts = facts_of(encoded(Image.new("RGB", (30, 20)), "JPEG", exif=exif))
    assert facts is not None
    assert (facts.width, facts.height) == (20, 30)


@pytest.mark.parametrize(
    ("facts", "values", "expected"),
    [
        (Facts("PNG", "RGB", 8, 32, 32), {}, []),
        (Facts("PNG", "RGB", 8, 64, 64), {}, ["scaled down"]),
        (Facts("PNG", "RGB", 8, 64, 40), {}, ["cropped to a square (data.shape)", "scaled down"]),
        (Facts("PNG", "RGB", 8, 64, 40), {"shape": "pad"}, ["padded to a square (data.shape)", "scaled down"]),
        (Facts("PNG", "RGB", 8, 20, 20), {}, ["padded, because it is small (data.enlarge)"]),
        (Facts("PNG", "RGB", 8, 20, 20), {"enlarge": "resize"}, ["scaled up (data.enlarge)"]),
        (
            Facts("PNG", "LA", 8, 32, 32, True),
            {},
            ["laid on data.background, because it has transparency", "grey to RGB (data.channels)"],
        ),
        (Facts("PNG", "RGB", 8, 32, 32), {"channels": 1}, ["colours to grey (data.channels)"]),
        (Facts("PNG", "I;16", 16, 32, 32), {"channels": 1}, ["brought to 8 bits (data.value_range)"]),
    ],
)
def test_what_is_done_to_an_image(facts: Facts, values: dict[str, Any], expected: list[str]) -> None:
    settings = DataSettings.model_validate({"source": "folder", "image_size": 32, "channels": 3, **values})
    assert done_to(facts, settings) == expected


# -- duplicates


def as_CHW(*images: np.ndarray) -> np.ndarray:
    return np.stack([image.transpose(2, 0, 1) for image in images])


def test_equal_and_nearly_equal_images_are_found_and_no_others() -> None:
    photos = [photo() for _ in range(60)]
    compressed = np.asarray(Image.open(io.BytesIO(encoded(Image.fromarray(photos[3]), "JPEG", quality=70))))
    scaled = np.asarray(Image.fromarray(photos[5]).resize((40, 40)).resize((64, 64)))
    lightened = np.clip(photos[7].astype(int) + 4, 0, 255).astype(np.uint8)
    images = as_CHW(*photos, photos[0], compressed, scaled, lightened, photos[0])
    assert equal_pairs(images).tolist() == [[0, 60], [0, 64]]
    assert near_pairs(images).tolist() == [[3, 61], [5, 62], [7, 63]]


def test_strokes_that_look_alike_and_flat_images_are_no_duplicates() -> None:
    strokes = np.zeros((30, 1, 32, 32), np.uint8)
    for number in range(30):
        strokes[number, 0, 4:28, 8 + number // 2 : 11 + number // 2 + number % 2] = 255
    assert len(near_pairs(strokes)) == 0
    flat = np.full((5, 1, 32, 32), 7, np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None]
    assert len(near_pairs(flat)) == 0
    assert near_pairs(np.zeros((0, 1, 8, 8), np.uint8)).shape == (0, 2)


# -- the report


@pytest.fixture
def ingested(tmp_path: Path) -> tuple[Manifest, dict[str, Any], dict[str, np.ndarray]]:
    root = tmp_path / "images"
    photos = [photo() for _ in range(40)]
    for number, image in enumerate(photos):
        place = root / ("odd" if number % 2 else "even") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image if number else image[:, :40]).save(place)
    for number in range(12):  # other files, the same image
        Image.fromarray(photos[1]).save(
            root / "odd" / f"copy{number}.png", compress_level=number % 9, dpi=(number + 1, 9)
        )
    Image.new("RGB", (64, 64)).save(root / "odd" / "black.png")
    (root / "odd" / "notes.svg").write_text("<svg/>")
    (root / "odd" / "broken.png").write_bytes(b"no image")
    values = {"source": "folder", "image_size": 32, "channels": 3, "unreadable": "skip", "validation_fraction": 0.4}
    settings, source = DataSettings.model_validate(values), sources.load("folder")
    originals = Originals()
    manifest = write_shards(
        settings,
        source(source.Settings.model_validate({"path": str(root)})),
        tmp_path / "shards",
        1,
        originals=originals,
    )
    images = {}
    for split in manifest.splits:
        dataset = open_dataset(tmp_path / "shards", split)
        images[split] = dataset.rows(np.arange(len(dataset)), ["image"])["image"]
    labels = {split: np.zeros(len(rows), np.int64) for split, rows in images.items()}
    return manifest, *data_report.numbers(manifest, originals, images, labels)


def test_the_report_has_what_a_person_should_know(
    ingested: tuple[Manifest, dict[str, Any], dict[str, np.ndarray]],
) -> None:
    manifest, found, shown = ingested
    assert sum(found["images"].values()) == found["compared"] == 53
    assert found["originals"]["kinds"] == {"PNG, RGB, 8 bit": 53}
    assert found["originals"]["done"] == {"cropped to a square (data.shape)": 1, "scaled down": 53}
    assert found["originals"]["width"] == [40, 64, 64]
    assert found["unreadable"] == 1
    assert found["left_out"] == {".svg": 1}
    assert found["blank"] == {"nearly black": 1}
    assert found["duplicates"]["equal"]["pairs"] == 12
    assert len(found["brightness"]["mean"]) == 3
    assert 60 < found["brightness"]["mean"][0] < 190
    across = found["duplicates"]["equal"]["across_splits"]
    assert across > 0
    assert any(
        warning.startswith(f"{across} pairs of equal images have one image to train on")
        for warning in found["warnings"]
    )
    assert any("1 images cannot be read" in warning for warning in found["warnings"])
    assert set(shown) == {"equal, in pairs", "nearly black"}
    pairs = shown["equal, in pairs"]
    np.testing.assert_array_equal(pairs[0::2], pairs[1::2])
    lines = "\n".join(data_report.text(found, manifest))
    for part in (
        "folder: ",
        "53  PNG, RGB, 8 bit",
        "width: 40 to 64, median 64",
        "12  pairs equal",
        "left out: 1 .svg",
        "warning: ",
    ):
        assert part in lines, part


def test_each_split_has_its_share_of_what_is_compared(
    ingested: tuple[Manifest, dict[str, Any], dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, found, _ = ingested
    of_all = [data_report.num_compared(manifest, split) for split in manifest.splits]
    assert of_all == list(found["images"].values())
    monkeypatch.setattr(data_report, "_MOST_COMPARED", 20)
    few = [data_report.num_compared(manifest, split) for split in manifest.splits]
    assert 18 <= sum(few) <= 20
    assert few[0] / sum(few) == pytest.approx(of_all[0] / sum(of_all), abs=0.06)
    monkeypatch.setattr(data_report, "_MOST_BYTES", 3 * 32 * 32 * 6)
    assert sum(data_report.num_compared(manifest, split) for split in manifest.splits) <= 6


def test_the_page_holds_it_all_and_runs_no_script(
    ingested: tuple[Manifest, dict[str, Any], dict[str, np.ndarray]],
) -> None:
    manifest, found, _ = ingested
    named = manifest.model_copy(update={"description": "<script>alert(1)</script>"})
    page = data_report.page(found, named, [("some images", b"png")])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    for part in (
        "PNG, RGB, 8 bit",
        "cropped to a square",
        "nearly black",
        "left out: .svg",
        "data:image/png;base64,cG5n",
    ):
        assert part in page, part
    assert page == data_report.page(found, named, [("some images", b"png")])
