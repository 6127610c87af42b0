"""Shards in a storage that all hosts reach: moved there by ingest, checked, read from there like any others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from ganpipe.data.access.host_cache import host_cache
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import Manifest, read_manifest
from ganpipe.data.shards.room import STORE
from ganpipe.data.shards.shard_set import Read, ShardSet
from ganpipe.data.shards.store import ShardStore, url_in
from ganpipe.data.sources.folder import Folder
from ganpipe.errors import GanpipeError, UnavailableError

Ingest = Callable[..., Manifest]


@pytest.fixture
def ingest(
    class_folder: Path, tmp_path: Path, folder_source: Callable[..., Folder], settings_of: Callable[..., DataSettings]
) -> Ingest:
    """Ingests 36 images, at most 4 in a shard, into a folder of this name below `tmp_path`."""

    def run(name: str, store: ShardStore | None = None) -> Manifest:
        settings = settings_of(samples_per_shard=4, validation_fraction=0.3)
        return write_shards(settings, folder_source(class_folder), tmp_path / name, store=store)

    return run


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


def stored(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.suffix == ".tar")


def test_the_folder_has_the_manifest_alone_and_the_store_each_shard(ingest: Ingest, url: str, tmp_path: Path) -> None:
    manifest = ingest("out", ShardStore(url))
    assert manifest == ingest("local")  # the same dataset, wherever its shards are
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]
    assert sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in stored(tmp_path)) == sorted(
        shard.sha256 for shard in manifest.shards
    )
    assert all(path.stem == hashlib.sha256(path.read_bytes()).hexdigest() for path in stored(tmp_path))


@pytest.mark.parametrize("read", ["cache", "stream"])
def test_it_is_read_from_there(ingest: Ingest, url: str, tmp_path: Path, read: Read) -> None:
    manifest = ingest("out", ShardStore(url))
    ingest("local")
    local = open_dataset(ShardSet(str(tmp_path / "local"), read="cache"), "train", tmp_path / "other")
    there = open_dataset(ShardSet(str(tmp_path / "out"), manifest, read=read, store=url), "train")
    rows = np.arange(len(local))[::-1]
    np.testing.assert_array_equal(there.rows(rows)["image"], local.rows(rows)["image"])
    assert [*(host_cache() / STORE).glob("*/*.tar")]
    there.close()


def test_what_is_there_is_not_moved_again(
    ingest: Ingest, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest("out", ShardStore(url))
    number = len(stored(tmp_path))
    assert number > 8
    assert f"data.store: {number} of {number} shards are new there" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in stored(tmp_path)}
    gone = stored(tmp_path)[0]
    gone.unlink()
    ingest("out", ShardStore(url))
    assert f"data.store: 1 of {len(before)} shards are new there" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in stored(tmp_path) if path != gone} == {
        path: time for path, time in before.items() if path != gone
    }
    assert gone.exists()


def test_few_shards_are_on_the_disk_at_a_time(
    ingest: Ingest, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, move_in = [0], ShardStore.move_in

    def looking(self: ShardStore, path: Path, sha256: str) -> bool:
        most[0] = max(most[0], len([*(tmp_path / "out").glob("*.tar")]))
        return move_in(self, path, sha256)

    monkeypatch.setattr(ShardStore, "move_in", looking)
    manifest = ingest("out", ShardStore(url))
    assert len(manifest.shards) > 8
    assert 1 <= most[0] <= 6


def damaging(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The first `times` files that are put into the store lose a bit."""
    put_file, left = LocalFileSystem.put_file, [times]

    def put(self: LocalFileSystem, path: str, there: str, **options: object) -> None:
        put_file(self, path, there, **options)
        if left[0] > 0:
            left[0] -= 1
            content = bytearray(Path(there).read_bytes())
            content[600] ^= 1
            Path(there).write_bytes(content)

    monkeypatch.setattr(LocalFileSystem, "put_file", put)


def test_a_store_that_damages_a_shard_gets_it_again(
    ingest: Ingest, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaging(monkeypatch, 2)
    test_the_folder_has_the_manifest_alone_and_the_store_each_shard(ingest, url, tmp_path)


def test_a_store_that_damages_all_is_an_error_that_names_it(
    ingest: Ingest, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaging(monkeypatch, 10**6)
    with pytest.raises(UnavailableError, match=r"data\.store: it has other bytes than the shard of SHA-256 "):
        ingest("out", ShardStore(url))
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not stored(tmp_path)


def test_a_store_that_refuses_is_said_before_any_image_is_decoded(
    ingest: Ingest, tmp_path: Path, class_folder: Path
) -> None:
    next(class_folder.rglob("*.png")).write_bytes(b"no image")  # which would be the error, were it read
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GanpipeError, match=r"file/store.*data\.store"):
        ingest("out", ShardStore(f"file://{tmp_path}/file/store"))


def test_a_shard_that_is_not_in_the_store(ingest: Ingest, url: str, tmp_path: Path) -> None:
    manifest = ingest("out", ShardStore(url))
    Path(url_in(url, manifest.shards_of("train")[0].sha256).removeprefix("file://")).unlink()
    found = ShardSet(str(tmp_path / "out"), manifest, read="stream", store=url)
    dataset = open_dataset(found, "train")
    with pytest.raises(GanpipeError, match=r"train-000000\.tar is not in data\.store; run `ganpipe ingest` again"):
        dataset.rows(np.array([0]))
    dataset.close()


def test_a_variable_in_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET", "mine")
    assert url_in("s3://$BUCKET/shards/", "ab" * 32) == f"s3://mine/shards/ab/{'ab' * 32}.tar"


def test_what_is_no_url(settings_of: Callable[..., DataSettings]) -> None:
    with pytest.raises(ValueError, match="expected a URL that all hosts reach"):
        settings_of(store="/data/shards")


def test_the_manifest_is_that_of_the_folder(ingest: Ingest, url: str, tmp_path: Path) -> None:
    assert ingest("out", ShardStore(url)) == read_manifest(tmp_path / "out")
