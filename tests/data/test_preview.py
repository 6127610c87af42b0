"""The picture of real images shows what lies in the shards: a column a class, or a square."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganpipe.data.ingest import preview as preview_module
from ganpipe.data.ingest.preview import preview
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.settings import DataSettings
from ganpipe.data.sources.folder import Folder

MakeFolder = Callable[..., Folder]
MakeSettings = Callable[..., DataSettings]


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    """Twenty images of 0, three of 100 and one of 200, in three classes."""
    for name, grey, number in (("a", 0, 20), ("b", 100, 3), ("c", 200, 1)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for copy in range(number):
            pixels = np.full((16, 16), grey + copy, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{copy}.png")
    return tmp_path / "images"


def test_a_column_is_a_class(
    coloured: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    settings = settings_of(channels=1, validation_fraction=0, samples_per_shard=7)
    manifest = write_shards(settings, folder_source(coloured), tmp_path / "out")
    images, columns = preview(lambda shard: tmp_path / "out", manifest)
    assert (columns, images.shape) == (3, (24, 1, 16, 16))
    greys = images[:, 0, 0, 0].reshape(8, 3)
    assert (greys[:, 0] < 20).all()
    assert sorted(greys[:3, 1]) == [100, 101, 102]
    assert greys[0, 2] == 200
    assert (greys[3:, 1] == 255).all()  # a class with few images leaves its places white
    assert (greys[1:, 2] == 255).all()
    np.testing.assert_array_equal(preview(lambda shard: tmp_path / "out", manifest)[0], images)


def test_without_labels_it_is_a_square(
    coloured: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    settings = settings_of(validation_fraction=0, image_size=16)
    manifest = write_shards(settings, folder_source(coloured, labels="none"), tmp_path / "out")
    images, columns = preview(lambda shard: tmp_path / "out", manifest)
    assert (columns, images.shape) == (5, (25, 3, 16, 16))
    shown = sorted(images[:24, 0, 0, 0])
    assert shown == [*range(20), 100, 101, 102, 200]  # each image once
    assert (images[24] == 255).all()


def test_large_images_are_reduced(
    coloured: Path,
    tmp_path: Path,
    folder_source: MakeFolder,
    settings_of: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preview_module, "LARGEST_SIDE", 8)
    for channels in (1, 3):
        settings = settings_of(channels=channels, validation_fraction=0)
        manifest = write_shards(settings, folder_source(coloured), tmp_path / "out")
        assert preview(lambda shard: tmp_path / "out", manifest)[0].shape == (24, channels, 8, 8)
