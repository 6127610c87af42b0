"""Small real images and IDX files, drawn by the tests."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ganpipe.data.access import retrying
from ganpipe.data.ingest import conversion
from ganpipe.data.settings import DataSettings
from ganpipe.data.sources.folder import Folder, FolderSettings


@pytest.fixture(autouse=True)
def host_cache_of_the_test(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GANPIPE_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def draw() -> Callable[..., Path]:
    """Save an image with a disc on a plain ground; every number gives another one."""

    def save(
        path: Path, number: int = 0, size: tuple[int, int] = (40, 40), mode: str = "RGB", **options: object
    ) -> Path:
        image = Image.new("RGB", size, (number * 37 % 256, number * 101 % 256, 90))
        width, height = size
        x, y = number * 7 % width, number * 13 % height
        ImageDraw.Draw(image).ellipse((x - 9, y - 9, x + 9, y + 9), fill=(255, number % 256, 0))
        path.parent.mkdir(parents=True, exist_ok=True)
        image.convert(mode).save(path, **options)  # type: ignore[arg-type]
        return path

    return save


@pytest.fixture
def flat_folder(tmp_path: Path, draw: Callable[..., Path]) -> Path:
    """Sixty images without labels."""
    for number in range(60):
        draw(tmp_path / "images" / f"{number:03d}.png", number)
    return tmp_path / "images"


@pytest.fixture
def class_folder(tmp_path: Path, draw: Callable[..., Path]) -> Path:
    """Three classes with twelve images each."""
    for number in range(36):
        draw(tmp_path / "classes" / "abc"[number % 3] / f"{number:03d}.png", number)
    return tmp_path / "classes"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each image that this process decodes."""
    seen: list[int] = []
    encode = conversion.encode_png

    def counted(image: object) -> bytes:
        seen.append(1)
        return encode(image)  # type: ignore[arg-type]

    monkeypatch.setattr(conversion, "encode_png", counted)
    return seen


@pytest.fixture
def folder_source() -> Callable[..., Folder]:
    return lambda path, **settings: Folder(FolderSettings(path=str(path), **settings))


@pytest.fixture
def settings_of() -> Callable[..., DataSettings]:
    def make(**values: object) -> DataSettings:
        return DataSettings.model_validate({"source": "folder", "image_size": 16, "channels": 3, **values})

    return make


@pytest.fixture
def write_idx() -> Callable[..., np.ndarray]:
    """Write images and labels as IDX files; returns the images, (N, 28, 28)."""

    def write(folder: Path, num: int = 50, stem: str = "train", packed: bool = False, num_labels: int | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        images_NHW = np.random.default_rng(num).integers(0, 256, (num, 28, 28), dtype=np.uint8)
        labels_N = np.arange(num if num_labels is None else num_labels, dtype=np.uint8) % 10
        contents = {
            f"{stem}-images-idx3-ubyte": struct.pack(">IIII", 0x803, num, 28, 28) + images_NHW.tobytes(),
            f"{stem}-labels-idx1-ubyte": struct.pack(">II", 0x801, len(labels_N)) + labels_N.tobytes(),
        }
        for name, content in contents.items():
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
        return images_NHW

    return write
