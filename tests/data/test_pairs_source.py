"""Pairs of images: two folders or side by side; both get the same geometry; what does not fit is named before work."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganpipe.data.images.decoding import size_of
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.sources.pairs import Pairs, PairsSettings
from ganpipe.errors import GanpipeError

MakeSettings = Callable[..., DataSettings]


def gradient(width: int, height: int, number: int = 0) -> Image.Image:
    """Red grows to the right, green downwards; blue is the image's number."""
    pixels_HWC = np.zeros((height, width, 3), np.uint8)
    pixels_HWC[..., 0] = np.linspace(0, 255, width)[None]
    pixels_HWC[..., 1] = np.linspace(0, 255, height)[:, None]
    pixels_HWC[..., 2] = number
    return Image.fromarray(pixels_HWC)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def folders(root: Path, **values: object) -> Pairs:
    paths = {"source_path": str(root / "source"), "target_path": str(root / "target")}
    return Pairs(PairsSettings.model_validate({**paths, **values}))


def side_by_side(root: Path, **values: object) -> Pairs:
    return Pairs(PairsSettings.model_validate({"layout": "side_by_side", "path": str(root), **values}))


def fill(root: Path, names: tuple[str, ...] = ("a.png", "b.png", "c.png"), size: tuple[int, int] = (40, 30)) -> None:
    """Pairs whose target is the source's negative."""
    for number, name in enumerate(names):
        image = gradient(*size, number)
        save(image, root / "source" / name)
        save(Image.eval(image, lambda value: 255 - value), root / "target" / name)


def rows_of(source: Pairs, out: Path, settings: DataSettings, split: str = "train") -> dict[str, np.ndarray]:
    write_shards(settings, source, out)
    dataset = open_dataset(out, split)
    return dataset.rows(np.arange(len(dataset)))


@pytest.mark.parametrize("shape", ["crop", "pad"])
def test_both_images_of_a_pair_get_the_same_geometry(tmp_path: Path, settings_of: MakeSettings, shape: str) -> None:
    fill(tmp_path)
    settings = settings_of(source="pairs", shape=shape, validation_fraction=0)
    manifest = write_shards(settings, folders(tmp_path, licence="CC0"), tmp_path / "out")
    assert (manifest.main, list(manifest.fields), manifest.licence) == ("target", ["source", "target"], "CC0")
    rows = open_dataset(tmp_path / "out", "train").rows(np.arange(3))
    inside = (rows["source"].astype(int) + rows["target"]).max(1)  # 255 on the image, 0 on what pads it
    assert inside.shape == (3, 16, 16)
    assert np.isin(inside.round(-1), (0, 250, 260)).all()
    assert ((inside > 0).all(axis=2).sum(1) == (16 if shape == "crop" else 12)).all()


def test_extensions_may_differ_and_folders_may_be_deep(tmp_path: Path) -> None:
    save(gradient(8, 8), tmp_path / "source" / "x" / "a.png")
    save(gradient(8, 8), tmp_path / "target" / "x" / "a.JPG", format="JPEG")
    save(gradient(8, 8), tmp_path / "source" / "b.0001.png")
    save(gradient(8, 8), tmp_path / "target" / "b.0001.webp")
    source = folders(tmp_path)
    source.check()
    (first, second) = source.items()
    assert (first.name, second.name) == ("b.0001", "x/a")
    assert second.images["source"].path == (tmp_path / "source" / "x" / "a.png")
    assert second.images["target"].path == (tmp_path / "target" / "x" / "a.JPG")


@pytest.mark.parametrize("direction", ["left_to_right", "right_to_left"])
def test_images_side_by_side(tmp_path: Path, settings_of: MakeSettings, direction: str) -> None:
    both = Image.new("RGB", (40, 20), "red")
    both.paste(Image.new("RGB", (20, 20), "blue"), (20, 0))
    save(both, tmp_path / "in" / "a.png")
    source = side_by_side(tmp_path / "in", direction=direction)
    rows = rows_of(source, tmp_path / "out", settings_of(source="pairs", validation_fraction=0))
    left, right = ("source", "target") if direction == "left_to_right" else ("target", "source")
    assert (rows[left][0, :, 5, 5].tolist(), rows[right][0, :, 5, 5].tolist()) == ([255, 0, 0], [0, 0, 255])
    assert (rows[left] == rows[left][:, :, :1, :1]).all()  # nothing of the other half


def test_halves_of_sixteen_bits_of_colour(tmp_path: Path, settings_of: MakeSettings) -> None:
    import imagecodecs

    pixels_HWC = np.zeros((16, 32, 3), np.uint16)
    pixels_HWC[:, :16], pixels_HWC[:, 16:] = 4095, 1000
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(imagecodecs.png_encode(pixels_HWC))
    settings = settings_of(source="pairs", validation_fraction=0)
    rows = rows_of(side_by_side(tmp_path / "in"), tmp_path / "out", settings)
    assert (rows["source"] == 255).all()  # `auto` takes 12 bits
    assert (rows["target"] == round(1000 / 4095 * 255)).all()


def test_a_small_source_of_a_large_target(tmp_path: Path, settings_of: MakeSettings) -> None:
    image = gradient(64, 48)
    save(image.resize((16, 12)), tmp_path / "source" / "a.png")
    save(image, tmp_path / "target" / "a.png")
    source = folders(tmp_path, source_size=8)
    rows = rows_of(source, tmp_path / "out", settings_of(source="pairs", image_size=32, validation_fraction=0))
    assert (rows["source"].shape, rows["target"].shape) == ((1, 3, 8, 8), (1, 3, 32, 32))
    shrunk = rows["target"].reshape(1, 3, 8, 4, 8, 4).mean((3, 5))
    assert np.abs(shrunk - rows["source"]).max() < 12  # the same part of the scene


def test_a_source_that_would_lack_its_targets_border_is_refused(tmp_path: Path, settings_of: MakeSettings) -> None:
    fill(tmp_path, size=(20, 20))
    source, settings = folders(tmp_path, source_size=8), settings_of(source="pairs", image_size=32)
    with pytest.raises(GanpipeError, match=r"data\.enlarge: pad would add a border to targets of 20 pixels and none"):
        write_shards(settings, source, tmp_path / "out")
    write_shards(settings.model_copy(update={"enlarge": "resize"}), source, tmp_path / "out")


def test_both_halves_stay_in_one_split(tmp_path: Path, settings_of: MakeSettings) -> None:
    fill(tmp_path, tuple(f"{number:02}.png" for number in range(20)))
    settings = settings_of(source="pairs", validation_fraction=0.5)
    manifest = write_shards(settings, folders(tmp_path), tmp_path / "out")
    assert manifest.splits == ("train", "validation")
    for split in manifest.splits:
        rows = open_dataset(tmp_path / "out", split).rows(np.arange(manifest.num_samples(split)))
        np.testing.assert_allclose(rows["source"].astype(int) + rows["target"], 255, atol=2)


def test_folders_of_subsets(tmp_path: Path) -> None:
    for subset, number in (("train", 2), ("val", 1), ("test", 3)):
        for index in range(number):
            save(gradient(40, 20), tmp_path / subset / f"{index}.png")
    source = side_by_side(tmp_path)
    assert [(item.name, item.split) for item in source.items()] == [
        ("train/0.png", "train"),
        ("train/1.png", "train"),
        ("val/0.png", "validation"),
    ]
    assert [(one.kind, one.number) for one in source.left_out()] == [("images of subsets that are not taken", 3)]
    assert {item.split for item in side_by_side(tmp_path, splits="mix").items()} == {None}
    assert {item.split for item in side_by_side(tmp_path, subsets=["train"]).items()} == {None}
    save(gradient(40, 20), tmp_path / "loose.png")
    with pytest.raises(GanpipeError, match=r"sources\.pairs: loose\.png lies beside the folders test, train, val"):
        side_by_side(tmp_path).check()


def test_an_image_without_its_partner(tmp_path: Path) -> None:
    fill(tmp_path, tuple(f"{number}.png" for number in range(9)))
    for number in range(4):
        (tmp_path / "target" / f"{number}.png").unlink()
    (tmp_path / "source" / "8.png").unlink()
    source, target = tmp_path / "source", tmp_path / "target"
    with pytest.raises(GanpipeError) as caught:
        folders(tmp_path).check()
    assert str(caught.value) == (
        f"sources.pairs: 4 in {source} without a partner in {target} (0.png, 1.png, 2.png, ...), "
        f"1 in {target} without a partner in {source} (8.png); a pair has the same name in both folders, extensions "
        "may differ"
    )


def test_an_ambiguous_name(tmp_path: Path) -> None:
    fill(tmp_path)
    save(gradient(40, 30), tmp_path / "target" / "a.jpg")
    with pytest.raises(
        GanpipeError, match=r"sources\.pairs\.target_path: a\.jpg and a\.png differ in their extensions"
    ):
        folders(tmp_path).check()


def test_pairs_of_different_sizes(tmp_path: Path) -> None:
    fill(tmp_path)
    save(gradient(20, 15), tmp_path / "source" / "b.png")
    said = r"the source b\.png has 20 x 15 pixels, its target b\.png 40 x 30; expected equal sizes \(sources\.pairs\.so"
    with pytest.raises(GanpipeError, match=said):
        folders(tmp_path).check()
    folders(tmp_path, source_size=8).check()
    save(gradient(20, 16), tmp_path / "source" / "b.png")
    with pytest.raises(GanpipeError, match="20 x 16 pixels, its target b.png 40 x 30; expected the same aspect ratio"):
        folders(tmp_path, source_size=8).check()


def test_sizes_are_those_of_upright_images_and_read_from_headers(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(gradient(30, 40), tmp_path / "source" / "a.jpg", exif=exif)
    target = save(gradient(40, 30), tmp_path / "target" / "a.png")
    assert size_of(turned) == size_of(target) == (40, 30)
    folders(tmp_path).check()
    assert size_of(save(gradient(30, 40), tmp_path / "b.png", exif=exif)) == (40, 30)
    with_pixels_cut_off = tmp_path / "c.png"
    with_pixels_cut_off.write_bytes(target.read_bytes()[:60])
    assert size_of(with_pixels_cut_off) == (40, 30)
    os.mkfifo(tmp_path / "d.png")
    assert size_of(tmp_path / "d.png") is size_of(tmp_path / "e.png") is None


@pytest.mark.parametrize("role", ["source", "target"])
def test_an_unreadable_image_is_named_with_its_role(tmp_path: Path, settings_of: MakeSettings, role: str) -> None:
    fill(tmp_path)
    (tmp_path / role / "b.png").write_bytes(b"no image")
    with pytest.raises(GanpipeError, match=rf"b: {role} b\.png: not an image in any format known here; remove it"):
        write_shards(settings_of(source="pairs"), folders(tmp_path), tmp_path / "out")
    settings = settings_of(source="pairs", unreadable="skip", validation_fraction=0)
    assert write_shards(settings, folders(tmp_path), tmp_path / "out").skipped == ("b",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"path": None}, r"sources\.pairs\.path: not set; for layout side_by_side it is the folder of images side by"),
        ({"path": "absent"}, r"sources\.pairs\.path: absent does not exist"),
        ({"layout": "folders"}, r"sources\.pairs\.source_path: not set; for layout folders it is the folder of the so"),
        ({}, r"sources\.pairs\.path: .*/in holds no image, but 1 \.txt \(a\.txt\)"),
    ],
)
def test_folders_that_are_not_there(tmp_path: Path, values: dict[str, object], message: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    for use in (Pairs.check, Pairs.describe, Pairs.items):
        with pytest.raises(GanpipeError, match=message) as caught:
            use(side_by_side(tmp_path / "in", **values))
        assert "\n" not in str(caught.value)


def test_an_odd_width(tmp_path: Path) -> None:
    save(gradient(41, 20), tmp_path / "a.png")
    with pytest.raises(GanpipeError, match=r"sources\.pairs\.path: a\.png is 41 pixels wide; two images side by side"):
        side_by_side(tmp_path).check()


def test_the_fingerprint_changes_with_either_folder(tmp_path: Path) -> None:
    fill(tmp_path)
    seen = {folders(tmp_path).fingerprint()}
    for role in ("source", "target"):
        save(gradient(40, 30), tmp_path / role / "d.png")
        seen.add(folders(tmp_path).fingerprint())
    assert len(seen) == 3
