"""Emoji in two styles: only those that both have, as two classes, from a package whose SHA-256 is known."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganpipe.data.access.download import KnownFile
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.tar import tar_ending, tar_member
from ganpipe.data.sources import emoji_styles
from ganpipe.data.sources.emoji_styles import EmojiStyles, EmojiStylesSettings
from ganpipe.errors import GanpipeError

NAMES = ("0023-fe0f-20e3", "1f34e", "1f34f", "1f44d-1f3fd", "1f600", "1f99999")
"""A keycap, two apples, a thumb in a skin tone, a smiley, and none."""
SETTINGS = {"groups": ["food-drink", "smileys-emotion", "people-body", "symbols"]}
DATA = DataSettings(source="emoji_styles", image_size=32, channels=3, background="white", validation_fraction=0)


def source_of(**values: object) -> EmojiStyles:
    return EmojiStyles(EmojiStylesSettings.model_validate({**SETTINGS, **values}))


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (64, 64), (number * 40, 0, 0, 255)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def tarball(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the same name with a few drawings, and with what is to be left where it is."""
    path = tmp_path / emoji_styles._TARBALL.name
    kept = b""
    with tarfile.open(path, "w:gz") as archive:
        for number, name in enumerate(NAMES):
            content, info = png(number), tarfile.TarInfo(f"package/img/google/64/{name}.png")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
            kept += tar_member(f"{name}.png", content)
        for name, kind in (("64/../../../out.png", tarfile.REGTYPE), ("64/1f34a.png", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(f"package/img/google/{name}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("package/img/google/sheets/64.png"))
    kept += tar_ending(len(kept))
    for name, content in (("_TARBALL", path.read_bytes()), ("_DRAWINGS", kept)):
        known = KnownFile(getattr(emoji_styles, name).name, len(content), hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(emoji_styles, name, known)
    return path


def test_only_emoji_that_both_have_as_two_classes(tarball: Path) -> None:
    source = source_of(path=str(tarball))
    source.check()
    found = [(item.name, item.values["label"]) for item in source.items()]
    assert found == [
        ("openmoji/0023-FE0F-20E3", 0),
        ("noto/0023-fe0f-20e3", 1),
        ("openmoji/1F34E", 0),
        ("noto/1f34e", 1),
        ("openmoji/1F34F", 0),
        ("noto/1f34f", 1),
        ("openmoji/1F600", 0),
        ("noto/1f600", 1),
    ]
    description = source.describe()
    assert description.classes == ("openmoji", "noto")
    assert "CC BY-SA 4.0" in description.licence
    assert "Apache 2.0" in description.licence
    assert description.num_images is not None
    assert description.num_images >= len(found)
    (left_out,) = source.left_out()
    assert left_out.kind == "emoji that Noto has not drawn"
    toned = [item.name for item in source_of(path=str(tarball), skin_tones=True).items()]
    assert set(toned) - {name for name, _ in found} == {"openmoji/1F44D-1F3FD", "noto/1f44d-1f3fd"}


def test_the_shards_hold_both_styles(tarball: Path, tmp_path: Path) -> None:
    manifest = write_shards(DATA, source_of(path=str(tarball)), tmp_path / "out")
    # No text: by its words a GAN would pair an emoji with itself.
    assert set(manifest.fields) == {"image", "label", "emoji"}
    dataset = open_dataset(tmp_path / "out", "train")
    rows = dataset.rows(np.arange(len(dataset)))
    assert sorted(rows["label"].tolist()) == [0] * 4 + [1] * 4
    emoji = [set(rows["emoji"][rows["label"] == style].tolist()) for style in (0, 1)]
    assert emoji[0] == emoji[1]  # each is there in both styles
    assert len(emoji[0]) == 4
    assert {manifest.names["emoji"][number] for number in emoji[0]} == {"23-20E3", "1F34E", "1F34F", "1F600"}
    reds = {tuple(image[:, 5, 5]) for image in rows["image"][rows["label"] == 1]}
    assert reds == {(number * 40, 0, 0) for number in (0, 1, 2, 4)}


def use_npm(folder: Path, tarball: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm command that gives this tarball for the package."""
    npm = folder / "npm"
    folder.mkdir()
    copy = f'{shutil.which("cat")} {tarball} > "$4/{tarball.name}"'
    npm.write_text(f'#!/bin/sh\n[ "$1 $2 $3" = "pack emoji-datasource-google@16.0.0 --pack-destination" ] && {copy}\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return npm


def test_npm_fetches_the_package_once_and_the_cache_keeps_the_drawings_only(
    tarball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host_cache_of_the_test: Path
) -> None:
    npm = use_npm(tmp_path / "bin", tarball, monkeypatch)
    names = [item.name for item in source_of().items()]
    npm.unlink()
    assert [item.name for item in source_of().items()] == names
    assert [path.name for path in (host_cache_of_the_test / "emoji_styles").glob("[!.]*")] == ["noto-64.tar"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cut", r"emoji-datasource-google-16\.0\.0\.tgz has [0-9,]+ bytes; expected"),
        ("edit", "has another SHA-256"),
    ],
)
def test_a_registry_with_another_package_is_not_believed(
    tarball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, message: str
) -> None:
    content = bytearray(tarball.read_bytes())
    content[-1] ^= 1
    tarball.write_bytes(content[:-1] if change == "cut" else content)
    use_npm(tmp_path / "bin", tarball, monkeypatch)
    with pytest.raises(GanpipeError, match=rf"Noto's emoji could not be fetched from any mirror: npm:emoji.*{message}"):
        source_of().items()


def test_another_package_is_refused(tarball: Path, tmp_path: Path) -> None:
    content = bytearray(tarball.read_bytes())
    content[-1] ^= 1
    (tmp_path / "other.tgz").write_bytes(content)
    with pytest.raises(
        GanpipeError, match=r"sources\.emoji_styles\.path: .*other\.tgz does not have the SHA-256 of emoji-"
    ):
        source_of(path=str(tmp_path / "other.tgz")).items()
    (tmp_path / "other.tgz").write_bytes(content[:-1])
    with pytest.raises(GanpipeError, match=r"other\.tgz has [0-9,]+ bytes; emoji-datasource-google-16\.0\.0\.tgz has"):
        source_of(path=str(tmp_path / "other.tgz")).check()
    with pytest.raises(GanpipeError, match=r"path: absent\.tgz is not a file; null fetches the package with npm"):
        source_of(path="absent.tgz").check()


def test_no_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        GanpipeError, match=r"Noto's emoji could not be fetched .*npm command is not installed.*npm pack"
    ):
        source_of().items()


def test_a_damaged_cache_is_made_again(tarball: Path, host_cache_of_the_test: Path) -> None:
    source_of(path=str(tarball)).items()
    kept = host_cache_of_the_test / "emoji_styles" / "noto-64.tar"
    content = kept.read_bytes()
    kept.write_bytes(content[:600] + b"x" + content[601:])
    source_of(path=str(tarball)).items()
    assert kept.read_bytes() == content


@pytest.mark.slow
def test_the_real_package(tmp_path: Path) -> None:
    source = EmojiStyles(EmojiStylesSettings())
    items = list(source.items())
    assert len(items) > 3000
    assert len(items) == 2 * len({item.name.partition("/")[2].upper() for item in items if item.values["label"]})
    manifest = write_shards(DATA.model_copy(update={"limit": 50}), source, tmp_path / "out")
    assert manifest.num_samples("train") == 50
