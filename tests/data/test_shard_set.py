"""Shards that a host does not have: fetched by content, checked, kept, and never twice at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ganpipe.data.access.host_cache import host_cache
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.shards.room import STORE
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.data.sources.folder import Folder
from ganpipe.errors import GanpipeError, UnavailableError


@pytest.fixture
def elsewhere(
    class_folder: Path, tmp_path: Path, folder_source: Callable[..., Folder], settings_of: Callable[..., DataSettings]
) -> ShardSet:
    """Shards in a folder that this host does not see, and under other names at URLs, as a DVC remote has them."""
    write_shards(
        settings_of(samples_per_shard=10, validation_fraction=0.3), folder_source(class_folder), tmp_path / "shards"
    )
    manifest = read_manifest(tmp_path / "shards")
    remote = tmp_path / "remote"
    remote.mkdir()
    for number, shard in enumerate(manifest.shards):
        shutil.copy(tmp_path / "shards" / shard.name, remote / f"{number:04x}")
    urls = {shard.name: f"file://{remote}/{number:04x}" for number, shard in enumerate(manifest.shards)}
    return ShardSet(str(tmp_path / "not-here"), manifest, urls)


def object_of(shards: ShardSet, split: str = "train") -> Path:
    """The file behind the URL of a split's first shard."""
    return Path(shards.urls[shards.read_manifest().shards_of(split)[0].name].removeprefix("file://"))


def test_a_fetched_dataset_is_the_one_that_was_ingested(elsewhere: ShardSet, tmp_path: Path) -> None:
    fetched, local = open_dataset(elsewhere, "train"), open_dataset(tmp_path / "shards", "train", tmp_path / "other")
    rows = np.arange(len(local))
    np.testing.assert_array_equal(fetched.rows(rows)["image"], local.rows(rows)["image"])
    np.testing.assert_array_equal(fetched.rows(rows)["label"], local.rows(rows)["label"])
    kept = sorted(path.name for path in (host_cache() / STORE).glob("*/*.tar"))
    assert kept == sorted(shard.name for shard in elsewhere.read_manifest().shards_of("train")), (
        "only what was asked for"
    )


def test_what_this_host_has_is_not_fetched(elsewhere: ShardSet, tmp_path: Path) -> None:
    with elsewhere.on_this_host("train"):
        pass
    for url in elsewhere.urls.values():
        Path(url.removeprefix("file://")).unlink()
    open_dataset(elsewhere, "train")  # from the store
    here = ShardSet(str(tmp_path / "shards"), elsewhere.manifest, elsewhere.urls)
    assert here.is_here()
    open_dataset(here, "train", tmp_path / "empty")
    assert not (tmp_path / "empty" / STORE).exists()


def test_a_folder_with_another_dataset_is_not_the_one(elsewhere: ShardSet, tmp_path: Path) -> None:
    manifest = elsewhere.read_manifest()
    other = ShardSet(str(tmp_path / "shards"), manifest.model_copy(update={"source": "other"}), elsewhere.urls)
    assert not other.is_here()


def test_a_damaged_shard_in_the_store_is_fetched_again(elsewhere: ShardSet) -> None:
    shard = elsewhere.read_manifest().shards_of("train")[0]
    with elsewhere.on_this_host("train") as places:
        stored = places[shard.name] / shard.name
        content = stored.read_bytes()
        stored.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with elsewhere.on_this_host("train"):
        assert stored.read_bytes() == content


@pytest.mark.parametrize("damage", [lambda content: content[:-7], lambda content: content + b"more", lambda _: b""])
def test_what_is_not_the_shard_is_refused(elsewhere: ShardSet, damage: Callable[[bytes], bytes]) -> None:
    path = object_of(elsewhere)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        UnavailableError, match=r"the content is not train-000000.tar: \d+ bytes of SHA-256 .*manifest says"
    ):
        open_dataset(elsewhere, "train")
    assert not [*(host_cache() / STORE).glob("*/train-000000.tar")]


def test_a_shard_that_is_nowhere(elsewhere: ShardSet) -> None:
    object_of(elsewhere).unlink()
    with pytest.raises(GanpipeError, match=r"train-000000.tar is not in the DVC remote; run `dvc push`"):
        open_dataset(elsewhere, "train")
    with pytest.raises(GanpipeError, match=r"no DVC remote is known to have it; run `dvc push`, or share the folder"):
        open_dataset(ShardSet(elsewhere.folder, elsewhere.manifest), "validation")


def test_a_store_that_does_not_answer(elsewhere: ShardSet) -> None:
    urls = dict.fromkeys(elsewhere.urls, "http://127.0.0.1:1/shard")
    with pytest.raises(UnavailableError, match=r"train-00000\d.tar cannot be fetched"):
        open_dataset(ShardSet(elsewhere.folder, elsewhere.manifest, urls), "train")


FETCH = """
import json, sys
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.shards.manifest import Manifest
from ganpipe.data.shards.shard_set import ShardSet
given = json.loads(sys.argv[1])
shards = ShardSet(given["folder"], Manifest.model_validate(given["manifest"]), given["urls"])
print(open_dataset(shards, "train").rows(__import__("numpy").arange(3))["image"].sum())
"""


def test_several_workers_of_a_host_fetch_once(elsewhere: ShardSet) -> None:
    given = {
        "folder": elsewhere.folder,
        "manifest": elsewhere.read_manifest().model_dump(mode="json"),
        "urls": elsewhere.urls,
    }
    command = [sys.executable, "-c", FETCH, json.dumps(given)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(3)]
    answers = {worker.communicate(timeout=120)[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert len(answers) == 1
    assert not [*(host_cache() / STORE).glob("*/.*.partial")]
