"""Frames: several images per sample go through ingest, shards and cache, and come back in their order, exactly."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganpipe.data.ingest.preview import preview
from ganpipe.data.ingest.shards import read_manifest, write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.sources.base import Classes, Description, Films, ImageInMemory, Item, Pictures, Source, SourceSettings
from ganpipe.errors import GanpipeError
from ganpipe.fields import Frames

NUM, T, SIZE = 7, 3, 8


def pixels_of(number: int, channels: int) -> np.ndarray:
    """The frames of a clip, uint8, (T, C, H, W)."""
    shape = (T, channels, SIZE, SIZE)
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def png(pixels_CHW: np.ndarray) -> ImageInMemory:
    file = io.BytesIO()
    Image.fromarray(pixels_CHW[0] if len(pixels_CHW) == 1 else np.moveaxis(pixels_CHW, 0, -1)).save(file, "PNG")
    return ImageInMemory(file.getvalue())


class Clips(Source):
    """Clips of noise, a number each, and their first frames as images."""

    Settings = SourceSettings

    def __init__(self, settings: SourceSettings, channels: int = 3, bad: int | None = None) -> None:
        self._channels, self._bad = channels, bad

    def check(self) -> None:
        return None

    def describe(self) -> Description:
        fields = {"frames": Films(T), "later": Films(T - 1), "image": Pictures(), "label": Classes(("even", "odd"))}
        return Description(fields, "Clips of noise.", "CC0", num_images=NUM)

    def items(self) -> Sequence[Item]:
        items = []
        for number in range(NUM):
            frames = tuple(map(png, pixels_of(number, self._channels)))
            if number == self._bad:
                frames = (*frames[:-1], ImageInMemory(b"no image"))
            images = {"frames": frames, "later": frames[1:], "image": frames[0]}
            items.append(Item(f"clip {number}", images, {"label": number % 2}))
        return items

    def fingerprint(self) -> str:
        return "clips"


def settings(channels: int = 3, **values: object) -> DataSettings:
    return DataSettings.model_validate(
        {"source": "folder", "image_size": SIZE, "channels": channels, "samples_per_shard": 4, **values}
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_come_back_exactly(tmp_path: Path, channels: int) -> None:
    source = Clips(SourceSettings(), channels)
    manifest = write_shards(settings(channels, validation_fraction=0.3), source, tmp_path / "out")
    assert manifest.main == "image"
    assert manifest.fields["frames"] == Frames(num_frames=T, size=SIZE, channels=channels)
    found: list[np.ndarray] = []
    for split in manifest.splits:
        dataset = open_dataset(tmp_path / "out", split)
        rows = dataset.rows(np.arange(len(dataset)))
        assert rows["frames"].shape == (len(dataset), T, channels, SIZE, SIZE)
        np.testing.assert_array_equal(rows["later"], rows["frames"][:, 1:])
        np.testing.assert_array_equal(rows["image"], rows["frames"][:, 0])
        found += list(rows["frames"])
    expected = {pixels_of(number, channels).tobytes() for number in range(NUM)}
    assert {frames.tobytes() for frames in found} == expected
    again = write_shards(settings(channels, validation_fraction=0.3), source, tmp_path / "again", num_processes=2)
    assert again == manifest


class OnlyFilms(Clips):
    """Frames, and no field of images."""

    def describe(self) -> Description:
        return Description({"frames": Films(T), "label": Classes(("even", "odd"))}, "Clips of noise.", "CC0")

    def items(self) -> Sequence[Item]:
        return [item._replace(images={"frames": item.images["frames"]}) for item in super().items()]


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_are_the_main_field_where_there_are_no_images(tmp_path: Path, channels: int) -> None:
    manifest = write_shards(settings(channels, validation_fraction=0), OnlyFilms(SourceSettings(), channels), tmp_path)
    assert (manifest.main, read_manifest(tmp_path)) == ("frames", manifest)
    assert manifest.image == Frames(num_frames=T, size=SIZE, channels=channels)
    images_NCHW, columns = preview(lambda shard: tmp_path, manifest)
    assert columns == 2
    first = {pixels_of(number, channels)[0].tobytes() for number in range(NUM)}
    shown = {image_CHW.tobytes() for image_CHW in images_NCHW} - {np.full_like(images_NCHW[0], 255).tobytes()}
    assert shown == first  # the first frame of each


def test_a_clip_with_an_unreadable_frame_is_skipped_whole(tmp_path: Path) -> None:
    source = Clips(SourceSettings(), bad=2)
    with pytest.raises(GanpipeError, match="clip 2: not an image in any format known here; remove it"):
        write_shards(settings(), source, tmp_path / "out")
    manifest = write_shards(settings(unreadable="skip", validation_fraction=0), source, tmp_path / "out")
    assert manifest.skipped == ("clip 2",)
    assert len(open_dataset(tmp_path / "out", "train")) == NUM - 1
