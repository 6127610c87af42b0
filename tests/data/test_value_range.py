"""The range of images of more than 8 bits is the dataset's: the same whatever was ingested before, and said."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from ganpipe.data.ingest.shards import IngestHistory, read_manifest, write_shards
from ganpipe.data.settings import DataSettings
from ganpipe.data.sources.base import Description, ImageInMemory, Item, Pictures, Source, SourceSettings
from ganpipe.data.sources.folder import Folder
from ganpipe.errors import GanpipeError
from ganpipe.section import parse

MakeFolder = Callable[..., Folder]
MakeSettings = Callable[..., DataSettings]
Capture = pytest.CaptureFixture[str]


def save(path: Path, most: int, number: int = 0, dtype: type = np.uint16) -> None:
    """A ramp from 0 to `most`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, most, 16 * 16).reshape(16, 16)
    ramp[0, 0] = number % most if most > 1 else 0
    path.write_bytes(imagecodecs.tiff_encode(ramp.astype(dtype)))


def brightest(folder: Path) -> list[int]:
    """Of each image, in order."""
    found = []
    for shard in read_manifest(folder).shards:
        with tarfile.open(folder / shard.name) as archive:
            for member in archive:
                content = archive.extractfile(member)
                assert content is not None
                found.append(int(np.asarray(Image.open(io.BytesIO(content.read()))).max()))
    return sorted(found)


@pytest.fixture
def settings(settings_of: MakeSettings) -> Callable[..., DataSettings]:
    return lambda **values: settings_of(**{"channels": 1, "validation_fraction": 0, **values})


def test_twelve_bits_in_sixteen(
    tmp_path: Path, folder_source: MakeFolder, settings: MakeSettings, capsys: Capture
) -> None:
    for number in range(3):
        save(tmp_path / "in" / f"{number}.tif", (1000, 2000, 4000)[number])
    source = folder_source(tmp_path / "in")
    write_shards(settings(), source, tmp_path / "auto")
    assert brightest(tmp_path / "auto") == [62, 125, 249]  # a dark image stays darker than a bright one
    said = capsys.readouterr().err
    assert (
        "warning: 3 16-bit image(s) with values from 0 to 4,000: 0 is taken as black and 4,095 as white (12 bits); set "
        "data.value_range if that is wrong"
    ) in said
    assert "nearly black" not in said
    write_shards(settings(value_range="full"), source, tmp_path / "full")
    assert brightest(tmp_path / "full") == [4, 8, 16]
    assert re.search(r"warning: 3 image\(s\) are nearly black: 0\.tif, 1\.tif, 2\.tif; ", capsys.readouterr().err)
    write_shards(settings(value_range=[0, 2000]), source, tmp_path / "chosen")
    assert brightest(tmp_path / "chosen") == [128, 255, 255]


def test_an_image_that_uses_all_bits_decides_for_all(
    tmp_path: Path, folder_source: MakeFolder, settings: MakeSettings, capsys: Capture
) -> None:
    save(tmp_path / "in" / "a.tif", 4000)
    save(tmp_path / "in" / "b.tif", 65535)
    write_shards(settings(), folder_source(tmp_path / "in"), tmp_path / "out")
    assert brightest(tmp_path / "out") == [16, 255]
    assert "is taken as black" not in capsys.readouterr().err  # their type's own range


def test_each_kind_has_its_own_range(
    tmp_path: Path, folder_source: MakeFolder, settings: MakeSettings, capsys: Capture
) -> None:
    save(tmp_path / "in" / "a.tif", 1000)
    save(tmp_path / "in" / "b.tif", 1, dtype=np.float32)
    save(tmp_path / "in" / "c.tif", 70_000, dtype=np.int32)
    save(tmp_path / "in" / "d.tif", 200, dtype=np.uint8)
    write_shards(settings(), folder_source(tmp_path / "in"), tmp_path / "out")
    assert brightest(tmp_path / "out") == [200, 249, 255, 255]
    said = capsys.readouterr().err
    assert "1 signed 32-bit image(s) with values from 0 to 70,000: 0 is taken as black and 70,000 as white;" in said
    assert "floating-point" not in said  # 0 to 1 goes without saying


def test_the_bytes_do_not_depend_on_what_was_ingested_before(
    tmp_path: Path, folder_source: MakeFolder, settings: MakeSettings
) -> None:
    history, images = IngestHistory(tmp_path / "notes"), tmp_path / "in"
    for number in range(5):
        save(images / f"{number}.tif", 3000, number)
    first = write_shards(settings(), folder_source(images), tmp_path / "out", history=history)
    again = write_shards(settings(), folder_source(images), tmp_path / "out", history=history)
    assert again.digest == first.digest
    save(images / "new.tif", 60_000)  # makes all others darker
    grown = write_shards(settings(), folder_source(images), tmp_path / "out", history=history)
    assert brightest(tmp_path / "out") == [12, 12, 12, 12, 12, 233]
    assert grown.digest == write_shards(settings(), folder_source(images), tmp_path / "fresh").digest
    (images / "new.tif").unlink()
    shrunk = write_shards(settings(), folder_source(images), tmp_path / "out", history=history)
    assert shrunk.digest == first.digest


@pytest.mark.parametrize("limit", [None, 3])
def test_any_number_of_processes_and_a_limit(
    tmp_path: Path, folder_source: MakeFolder, settings: MakeSettings, limit: int | None
) -> None:
    for number in range(6):
        save(tmp_path / "in" / f"{number}.tif", 500 * (number + 1), number)
    found = {
        write_shards(settings(limit=limit), folder_source(tmp_path / "in"), tmp_path / str(processes), processes).digest
        for processes in (1, 2)
    }
    assert len(found) == 1


class Stream(Source):
    """Images that come once each time they are asked for, as from a URL."""

    Settings = SourceSettings

    def __init__(self, settings: SourceSettings, contents: tuple[bytes, ...] = ()) -> None:
        self._contents = contents
        self.times = 0

    def check(self) -> None:
        assert self._contents

    def fingerprint(self) -> str:
        return str(len(self._contents))

    def describe(self) -> Description:
        return Description({"image": Pictures()}, text="A stream.", licence="CC0")

    def items(self) -> Iterator[Item]:
        self.times += 1
        return (Item(str(number), {"image": ImageInMemory(one)}) for number, one in enumerate(self._contents))


def test_a_stream_is_asked_twice_only_where_it_must(tmp_path: Path, settings: MakeSettings) -> None:
    wide = imagecodecs.tiff_encode(np.full((16, 16), 1000, np.uint16))
    narrow = imagecodecs.png_encode(np.full((16, 16), 100, np.uint8))
    for contents, values, times in (
        ((wide, narrow), {}, 2),
        ((wide, narrow), {"value_range": "full"}, 1),
        ((narrow,), {}, 1),
    ):
        source = Stream(SourceSettings(), contents)
        write_shards(settings(**values), source, tmp_path / "out")
        assert source.times == times
    source = Stream(SourceSettings(), (wide, narrow))
    write_shards(settings(), source, tmp_path / "out")
    assert brightest(tmp_path / "out") == [100, 249]


def test_an_unreadable_one_is_named_or_left_out(
    tmp_path: Path, folder_source: MakeFolder, settings: MakeSettings
) -> None:
    save(tmp_path / "in" / "a.tif", 1000)
    (tmp_path / "in" / "b.tif").write_bytes(imagecodecs.tiff_encode(np.full((4, 4), np.nan, np.float32)))
    source = folder_source(tmp_path / "in")
    with pytest.raises(GanpipeError, match=r"b\.tif: has pixels that are not finite numbers .*; remove it, or set"):
        write_shards(settings(), source, tmp_path / "out")
    assert write_shards(settings(unreadable="skip"), source, tmp_path / "out").skipped == ("b.tif",)


@pytest.mark.parametrize("value", [[5, 5], [5, 1], [0, float("inf")], [1], "auot", 3])
def test_ranges_that_are_none(value: object) -> None:
    with pytest.raises(GanpipeError, match=r"data\.value_range"):
        parse(DataSettings, {"value_range": value}, "data")
