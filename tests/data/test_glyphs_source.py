"""Glyphs: the characters of real fonts (those that matplotlib brings), their sizes, and what is left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.sources.glyphs import Glyph, Glyphs, GlyphsSettings
from ganpipe.errors import GanpipeError

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
NAMES = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono-Bold.ttf")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "fonts" / "serif").mkdir(parents=True)
    for name in NAMES:
        shutil.copy(FONTS / name, tmp_path / "fonts" / ("serif" if "Serif" in name else "") / name)
    return tmp_path / "fonts"


def source(folder: Path, **values: object) -> Glyphs:
    return Glyphs(GlyphsSettings.model_validate({"path": str(folder), "characters": "AQgj1", **values}))


def pixels(glyph: object) -> np.ndarray:
    assert isinstance(glyph, Glyph)
    return np.frombuffer(glyph.read(), np.uint8).reshape(128, 128)


def test_each_character_of_each_font_is_an_image(folder: Path) -> None:
    found = source(folder)
    items = list(found.items())
    description = found.describe()
    assert len(items) == description.num_images == 15
    assert description.classes == tuple("AQgj1")
    assert description.fields["font"].names == ("DejaVuSans.ttf", "DejaVuSansMono-Bold.ttf", "serif/DejaVuSerif.ttf")  # type: ignore[union-attr]
    assert {item.values["label"] for item in items} == set(range(5))
    images = {pixels(item.images["image"]).tobytes() for item in items}
    assert len(images) == 15


def test_characters_fill_the_square_and_stand_on_one_line(folder: Path) -> None:
    for font in {item.values["font"] for item in source(folder).items()}:
        shown = {
            "AQgj1"[int(item.values["label"])]: pixels(item.images["image"])
            for item in source(folder).items()
            if item.values["font"] == font
        }
        boxes = {character: np.argwhere(image > 40) for character, image in shown.items()}
        tops = {character: found.min(0) for character, found in boxes.items()}
        bottoms = {character: found.max(0) for character, found in boxes.items()}
        assert abs(int(bottoms["A"][0]) - int(bottoms["1"][0])) <= 1  # the baseline
        assert bottoms["g"][0] > bottoms["A"][0]
        extent = max(
            max(int(found[0]) for found in bottoms.values()) - min(int(found[0]) for found in tops.values()),
            *(int(bottoms[c][1] - tops[c][1]) for c in shown),
        )
        assert 100 < extent < 124
        for character in shown:  # in the middle
            assert abs(int(tops[character][1]) + int(bottoms[character][1]) - 127) <= 4


def test_examples_are_of_the_same_font(tmp_path: Path, folder: Path) -> None:
    found = source(folder, fields="style", examples="AB")
    for item in found.items():
        first, second = item.references("examples")
        if item.values["label"] == 0:
            assert (pixels(first) == pixels(item.images["image"])).mean() > 0.99
        assert not (pixels(first) == pixels(second)).all()
    settings = DataSettings.model_validate({"source": "glyphs", "image_size": 16, "channels": 1})
    write_shards(settings, found, tmp_path / "shards")
    rows = open_dataset(tmp_path / "shards", "train").rows(np.arange(5))
    assert rows["examples"].shape == (5, 2, 1, 16, 16)
    assert rows["image"].shape == (5, 1, 16, 16)
    assert {"label", "font"} <= rows.keys()


def test_what_cannot_be_drawn_is_left_out_and_named(folder: Path) -> None:
    shutil.copy(FONTS / "cmex10.ttf", folder / "signs.ttf")
    (folder / "broken.ttf").write_bytes(b"no font")
    found = source(folder, characters="AЖ")
    assert len(list(found.items())) == 6
    left_out = {one.kind: one.names for one in found.left_out()}
    assert any("lack a character" in kind and "signs.ttf" in names[0] for kind, names in left_out.items())
    assert any(kind == "files that are no fonts" and "broken.ttf" in names[0] for kind, names in left_out.items())


def test_bad_settings_say_what_was_expected(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        GanpipeError, match=r"sources.glyphs.path: .*missing is not a folder; on Debian `apt-get install"
    ):
        source(tmp_path / "missing").check()
    with pytest.raises(GanpipeError, match=r"sources.glyphs.fonts: no file of .* matches Times\*"):
        source(folder, fonts=["Times*"]).check()
    with pytest.raises(GanpipeError, match=r"sources.glyphs.characters: 1 of the fonts .* at least 2 are needed"):
        source(folder, fonts=["DejaVuSans.ttf"]).describe()
    for characters, message in (("AAB", "named twice"), ("A B", "cannot be seen")):
        with pytest.raises(ValueError, match=message):
            source(folder, characters=characters)


def test_the_fingerprint_follows_the_fonts(folder: Path) -> None:
    before = source(folder).fingerprint()
    assert before == source(folder).fingerprint()
    shutil.copy(FONTS / "DejaVuSans-Bold.ttf", folder / "more.ttf")
    assert source(folder).fingerprint() != before
