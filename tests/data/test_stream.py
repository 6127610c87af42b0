"""Samples from the shards themselves: those of the cache, within a bound on disk, and errors that name a shard."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ganpipe.data.access.host_cache import cache_limit, host_cache
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading import stream
from ganpipe.data.loading.cache import CachedDataset
from ganpipe.data.loading.dataset import Dataset
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.loading.order import SampleOrder
from ganpipe.data.loading.stream import StreamedDataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.shards.room import STORE
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.data.sources.folder import Folder
from ganpipe.errors import GanpipeError, UnavailableError


@pytest.fixture
def shards(
    class_folder: Path, tmp_path: Path, folder_source: Callable[..., Folder], settings_of: Callable[..., DataSettings]
) -> Path:
    """A folder with the shards of 36 images, at most 4 in each."""
    settings = settings_of(samples_per_shard=4, validation_fraction=0.3)
    write_shards(settings, folder_source(class_folder), tmp_path / "shards")
    return tmp_path / "shards"


@pytest.fixture
def elsewhere(shards: Path, tmp_path: Path) -> ShardSet:
    """The same shards at URLs, for a host that does not see the folder."""
    manifest = read_manifest(shards)
    shutil.copytree(shards, tmp_path / "remote")
    urls = {shard.name: f"file://{tmp_path}/remote/{shard.name}" for shard in manifest.shards}
    return ShardSet(str(tmp_path / "not-here"), manifest, urls, read="stream")


@pytest.fixture
def opened() -> Iterator[Callable[[ShardSet | Path], StreamedDataset]]:
    """Opens a stream that is closed after the test."""
    datasets: list[Dataset] = []

    def open_stream(shards: ShardSet | Path, split: str = "train") -> StreamedDataset:
        found = ShardSet(str(shards), read="stream") if isinstance(shards, Path) else shards
        datasets.append(open_dataset(found, split))
        assert isinstance(datasets[-1], StreamedDataset)
        return datasets[-1]

    yield open_stream
    for dataset in datasets:
        dataset.close()


Open = Callable[..., StreamedDataset]


def on_disk() -> list[Path]:
    """Walked, not globbed: a walk passes over folders that another thread removes meanwhile."""
    found = (Path(folder) / name for folder, _, names in os.walk(host_cache() / STORE) for name in names)
    return sorted(path for path in found if path.suffix == ".tar")


def bytes_on_disk() -> int:
    """Of what is still there when it is measured: another thread makes room meanwhile."""
    found = 0
    for path in on_disk():
        with contextlib.suppress(FileNotFoundError):
            found += path.stat().st_size
    return found


def bytes_of(shards: ShardSet, number: int = 0) -> int:
    return shards.read_manifest().shards_of("train")[number].num_bytes


@pytest.mark.parametrize("split", ["train", "validation"])
def test_its_rows_are_those_of_the_cache(shards: Path, elsewhere: ShardSet, opened: Open, split: str) -> None:
    cached = open_dataset(ShardSet(str(shards), read="cache"), split)
    indices = np.random.default_rng(0).permutation(np.r_[np.arange(len(cached)), 0, 0])  # a row may be asked for twice
    expected = cached.rows(indices)
    for streamed in (opened(shards, split), opened(elsewhere, split)):
        found = streamed.rows(indices)
        assert list(found) == list(expected)
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
        assert streamed.rows(np.array([], np.int64), ["label"])["label"].shape == (0,)
        with pytest.raises(IndexError, match="in a split of"):
            streamed.rows(np.array([len(cached)]))


def test_in_several_threads(shards: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_THREADS_PAY_BYTES", 0)
    cached, streamed = open_dataset(ShardSet(str(shards), read="cache"), "train"), opened(shards)
    indices = np.arange(len(cached))[::-1]
    np.testing.assert_array_equal(streamed.rows(indices)["image"], cached.rows(indices)["image"])


def test_what_it_reads_in_place_is_not_copied(shards: Path, opened: Open) -> None:
    opened(shards).rows(np.arange(9))
    assert not [*host_cache().glob("**/*.tar"), *host_cache().glob("decoded/*")]


def test_an_epoch_in_windows_stays_within_its_bytes(
    elsewhere: ShardSet, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 2 * 2 * max(shard.num_bytes for shard in elsewhere.read_manifest().shards)
    monkeypatch.setenv("GANPIPE_CACHE_BYTES", str(limit))
    streamed = opened(elsewhere)
    streamed.require_window(2)
    order = SampleOrder(streamed.shard_sizes_S, 0, 2)
    found, position, most = [], 0, 0
    while position < 2 * len(streamed):
        held, end = order.window_at(position)
        streamed.expect("", held, order.window_at(end)[0])
        found.append(streamed.rows(order.indices(position, end))["image"])
        position = end
        most = max(most, bytes_on_disk())
    assert 0 < most <= limit
    images = np.concatenate(found)
    cached = open_dataset(ShardSet(elsewhere.folder, elsewhere.manifest, elsewhere.urls, read="cache"), "train")
    np.testing.assert_array_equal(images, cached.rows(order.indices(0, len(images)))["image"])


def test_what_will_be_needed_is_fetched_ahead(elsewhere: ShardSet, opened: Open) -> None:
    streamed = opened(elsewhere)
    streamed.expect("", [0], [2, 1])
    names = [streamed.shards[number].name for number in (0, 1, 2)]
    deadline = time.monotonic() + 20
    while sorted(path.name for path in on_disk()) != names:
        assert time.monotonic() < deadline, on_disk()
        time.sleep(0.01)


def test_what_was_fetched_is_not_fetched_again(elsewhere: ShardSet, opened: Open) -> None:
    opened(elsewhere).rows(np.arange(3))
    Path(elsewhere.urls[elsewhere.read_manifest().shards_of("train")[0].name].removeprefix("file://")).unlink()
    opened(elsewhere).rows(np.arange(3))


def test_a_shard_that_another_process_removes_is_still_read(elsewhere: ShardSet, opened: Open) -> None:
    streamed = opened(elsewhere)
    streamed.expect("", [0], [])
    before = streamed.rows(np.arange(2))["image"]
    shutil.rmtree(host_cache() / STORE)
    np.testing.assert_array_equal(streamed.rows(np.arange(2))["image"], before)
    streamed.rows(np.array([len(streamed) - 1]))  # and others come


def test_several_readers_at_once(elsewhere: ShardSet, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANPIPE_CACHE_BYTES", str(2 * bytes_of(elsewhere)))
    expected = open_dataset(dataclasses.replace(elsewhere, read="cache"), "train").rows(np.arange(20))["image"]
    shutil.rmtree(host_cache() / STORE)
    streams, failures = [opened(elsewhere) for _ in range(3)], []

    def read(streamed: StreamedDataset) -> None:
        for _ in range(3):
            if not np.array_equal(streamed.rows(np.arange(20))["image"], expected):
                failures.append("other rows")

    threads = [threading.Thread(target=read, args=[streamed]) for streamed in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


DAMAGES = [
    (Path.unlink, GanpipeError, "is not in the DVC remote; run `dvc push`", "missing, but the manifest lists it"),
    (damaged, UnavailableError, "the content is not train-000000.tar", "damaged: its SHA-256 is"),
    (cut, UnavailableError, "the content is not train-000000.tar", "cut short: "),
]


@pytest.mark.parametrize(("damage", "kind", "there", "here"), DAMAGES)
def test_a_shard_that_is_gone_or_changed(
    shards: Path, elsewhere: ShardSet, opened: Open, damage: Callable[[Path], None], kind: type, there: str, here: str
) -> None:
    name = elsewhere.read_manifest().shards_of("train")[0].name
    remote, original = Path(elsewhere.urls[name].removeprefix("file://")), (shards / name).read_bytes()
    damage(remote)
    damage(shards / name)
    for found, kind_of_error, text in ((elsewhere, kind, there), (shards, GanpipeError, here)):
        streamed = opened(found)
        with pytest.raises(kind_of_error, match=text) as caught:
            streamed.expect("", [1, 0], [])
        assert name in str(caught.value)
        with pytest.raises(kind_of_error, match=text):
            streamed.rows(np.array([0]))
        (remote if found is elsewhere else shards / name).write_bytes(original)
        assert len(streamed.rows(np.array([0]))["image"]) == 1  # mended, it is read: an error is not remembered


def test_a_shard_with_other_content_than_the_manifest_says(shards: Path, opened: Open) -> None:
    manifest = read_manifest(shards)
    wrong = dataclasses.replace(
        ShardSet(str(shards), read="stream"),
        manifest=manifest.model_copy(
            update={"shards": tuple(s.model_copy(update={"num_samples": 2}) for s in manifest.shards)}
        ),
    )
    with pytest.raises(GanpipeError, match=r"train-000000\.tar: "):
        StreamedDataset(wrong, wrong.read_manifest(), "train", host_cache()).rows(np.array([0]))


def test_too_little_room_is_said_before_anything_is_fetched(
    elsewhere: ShardSet, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANPIPE_CACHE_BYTES", str(5 * bytes_of(elsewhere)))
    streamed = opened(elsewhere)
    streamed.require_window(2)
    says = (
        r"window_shards: got null \(all shards\): \d+ shards of the train split are held at a time.*_BYTES is \d+\); "
    )
    with pytest.raises(GanpipeError, match=says + r"set train.window_shards to 2 or fewer"):
        streamed.require_window(None)
    with pytest.raises(GanpipeError, match=r"window_shards: got 3: 6 shards"):
        streamed.require_window(3)
    with pytest.raises(GanpipeError, match=r"got 2: \d shards .*; set train.window_shards to 1 or fewer"):
        streamed.require_window(2, num_orders=2)  # of two domains
    monkeypatch.setenv("GANPIPE_CACHE_BYTES", "100")
    with pytest.raises(GanpipeError, match="set GANPIPE_CACHE_BYTES higher, or make smaller shards"):
        opened(elsewhere).require_window(1)
    monkeypatch.setattr(stream, "MOST_OPEN", 4)
    with pytest.raises(GanpipeError, match=r"of which at most 4 are held at a time; set train.window_shards to 2 or"):
        streamed.require_window(None)
    assert not on_disk()


@pytest.mark.parametrize(
    ("text", "num_bytes"), [("1000", 1000), ("2K", 2048), ("3m", 3 << 20), ("200G", 200 << 30), ("2T", 2 << 40)]
)
def test_the_caches_bytes(text: str, num_bytes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GANPIPE_CACHE_BYTES", text)
    assert cache_limit(tmp_path / "not" / "there") == (num_bytes, f"GANPIPE_CACHE_BYTES is {text}")


@pytest.mark.parametrize("text", ["much", "1.5G", "-3", "G", "10GB", "1e9"])
def test_what_is_no_number_of_bytes(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GANPIPE_CACHE_BYTES", text)
    with pytest.raises(GanpipeError, match=r"GANPIPE_CACHE_BYTES: got .*; expected bytes such as 50000"):
        cache_limit(tmp_path)


def test_without_a_number_a_share_of_the_free_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GANPIPE_CACHE_BYTES", raising=False)
    limit, why = cache_limit(tmp_path / "not" / "there")
    assert limit == pytest.approx(0.8 * shutil.disk_usage(tmp_path).free, rel=0.05)
    assert "80% of the " in why


def test_auto_takes_the_cache_where_it_fits_and_says_when_it_does_not(
    shards: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GANPIPE_CACHE_BYTES", "1000")
    streamed = opened(ShardSet(str(shards)))
    said = capsys.readouterr().err
    assert (
        "data.read: the train split is read from its shards: decoded it takes 0.0 GiB (GANPIPE_CACHE_BYTES is" in said
    )
    assert not (host_cache() / "decoded").exists()
    monkeypatch.delenv("GANPIPE_CACHE_BYTES")
    assert isinstance(open_dataset(shards, "train"), CachedDataset)
    monkeypatch.setenv("GANPIPE_CACHE_BYTES", "1000")
    assert isinstance(open_dataset(shards, "train"), CachedDataset)  # it is there already
    assert len(streamed) == len(open_dataset(shards, "train"))
