"""The decoded cache: exact, made once, by one process at a time, and made again where it is damaged."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from ganpipe.data.access.host_cache import host_cache
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading import cache
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import read_manifest, write_manifest
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.data.sources.folder import Folder
from ganpipe.errors import GanpipeError

MakeFolder = Callable[..., Folder]
MakeSettings = Callable[..., DataSettings]


@pytest.fixture
def shards(class_folder: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings) -> Path:
    settings = settings_of(samples_per_shard=10, validation_fraction=0.3)
    write_shards(settings, folder_source(class_folder), tmp_path / "shards")
    return tmp_path / "shards"


def home_of(shards: Path, split: str = "train") -> Path:
    return host_cache() / "decoded" / f"{read_manifest(shards).digest[:32]}-{split}"


def expected(shards: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """What a plain WebDataset client reads: images (N, C, H, W) and labels."""
    urls = [str(shards / shard.name) for shard in read_manifest(shards).shards_of(split)]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("png", "cls"))
    return np.stack([image.transpose(2, 0, 1) for image, _ in samples]), np.array([label for _, label in samples])


def check_rows(shards: Path, split: str) -> None:
    dataset = open_dataset(shards, split)
    images_NCHW, labels_N = expected(shards, split)
    assert len(dataset) == len(labels_N)
    order_N = np.random.default_rng(0).permutation(len(labels_N))
    rows = dataset.rows(order_N)
    assert rows["image"].dtype == np.uint8
    assert rows["label"].dtype == np.int64
    np.testing.assert_array_equal(rows["image"], images_NCHW[order_N])
    np.testing.assert_array_equal(rows["label"], labels_N[order_N])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_are_the_shards_samples(shards: Path, split: str) -> None:
    check_rows(shards, split)
    assert open_dataset(shards, split).fields == ("image", "label")


def test_in_several_processes(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_POOL_PAYS_BYTES", 0)
    check_rows(shards, "train")


def test_it_is_made_once(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_dataset(shards, "train")
    before = {path: path.stat().st_mtime_ns for path in home_of(shards).iterdir()}
    for shard in read_manifest(shards).shards:
        (shards / shard.name).unlink()  # it needs the manifest alone
    open_dataset(shards, "train")
    assert {path: path.stat().st_mtime_ns for path in home_of(shards).iterdir()} == before


def test_cache_root_can_be_given(shards: Path, tmp_path: Path) -> None:
    open_dataset(shards, "train", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "decoded" / home_of(shards).name / "image.npy").is_file()
    assert not host_cache().joinpath("decoded").exists()


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda home: corrupt(home / "image.npy"),
        lambda home: corrupt(home / "label.npy"),
        lambda home: os.truncate(home / "image.npy", 1000),
        lambda home: (home / "image.npy").write_bytes(b""),
        lambda home: (home / "label.npy").unlink(),
        lambda home: (home / "complete.json").unlink(),
        lambda home: (home / "complete.json").write_text("{"),
        lambda home: (home / "complete.json").write_text('{"format": 1, "crc32": {}}'),
        lambda home: np.save(home / "label.npy", np.zeros(3, np.int64)),
        lambda home: np.save(home / "label.npy", np.array([{}], dtype=object), allow_pickle=True),
    ],
)
def test_a_damaged_cache_is_made_again(shards: Path, damage: Callable[[Path], object]) -> None:
    open_dataset(shards, "train")
    damage(home_of(shards))
    check_rows(shards, "train")
    assert sorted(path.name for path in home_of(shards).parent.iterdir()) == [
        home_of(shards).name,
        f"{home_of(shards).name}.lock",
    ]


def test_what_a_killed_build_left_is_removed(shards: Path) -> None:
    building = home_of(shards).with_name(f"{home_of(shards).name}.building")
    building.mkdir(parents=True)
    (building / "image.npy").write_bytes(b"half")
    check_rows(shards, "train")
    assert not building.exists()


def test_open_arrays_outlive_a_rebuild(shards: Path) -> None:
    dataset = open_dataset(shards, "train")
    before = dataset.rows(np.arange(5))
    (home_of(shards) / "complete.json").unlink()
    check_rows(shards, "train")
    np.testing.assert_array_equal(dataset.rows(np.arange(5))["image"], before["image"])


OPEN = """
import hashlib, sys
from pathlib import Path
import numpy as np
from ganpipe.data.loading.opening import open_dataset
if __name__ == "__main__":
    dataset = open_dataset(Path(sys.argv[1]), "train")
    rows = dataset.rows(np.arange(len(dataset)))
    print(hashlib.sha256(rows["image"].tobytes() + rows["label"].tobytes()).hexdigest())
"""


def test_several_processes_at_once(shards: Path, tmp_path: Path) -> None:
    script = tmp_path / "open.py"
    script.write_text(OPEN)
    command = [sys.executable, str(script), str(shards)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert all(process.returncode == 0 for process in processes)
    images_NCHW, labels_N = expected(shards, "train")
    assert found == {hashlib.sha256(images_NCHW.tobytes() + labels_N.astype(np.int64).tobytes()).hexdigest()}


def test_inside_a_distributed_job_every_worker_sees_all(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # webdataset's own splitting by node reads these, and would give this worker a part of the shards.
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "WDS_SECURE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert len(open_dataset(shards, "train")) == read_manifest(shards).num_samples("train")
    monkeypatch.undo()


def test_a_damaged_shard_is_named_and_leaves_no_cache(shards: Path) -> None:
    corrupt(shards / "train-000001.tar")
    with pytest.raises(GanpipeError, match=r"train-000001\.tar: damaged"):
        open_dataset(shards, "train")
    assert not home_of(shards).exists()
    assert not home_of(shards).with_name(f"{home_of(shards).name}.building").exists()


def rewrite(shards: Path, samples: list[dict]) -> None:
    """Replace the first shard by another one, and the manifest by one that agrees with its bytes and ten samples."""
    manifest = read_manifest(shards)
    first = manifest.shards[0]
    with webdataset.TarWriter(str(shards / first.name), mtime=0) as writer:
        for sample in samples:
            writer.write(sample)
    content = (shards / first.name).read_bytes()
    shard = first.model_copy(
        update={"sha256": hashlib.sha256(content).hexdigest(), "num_bytes": len(content), "num_samples": 10}
    )
    write_manifest(shards, manifest.model_copy(update={"shards": (shard, *manifest.shards[1:])}))


def test_a_member_that_is_there_twice(shards: Path) -> None:
    rewrite(shards, [{**sample(n), "__key__": "same"} for n in range(10)])
    with pytest.raises(GanpipeError, match=r"train-000000\.tar: .*duplicate"):
        open_dataset(shards, "train")


def sample(number: int, size: int = 16, label: int = 0) -> dict:
    return {"__key__": f"{number:09d}", "png": np.zeros((size, size, 3), np.uint8), "cls": label}


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([sample(n) for n in range(9)], "9 samples, the manifest says 10"),
        ([sample(n) for n in range(11)], "more samples than the 10"),
        ([sample(n, size=5000 if n == 3 else 16) for n in range(10)], "sample 000000003: .png: .* 5000 x 5000"),
        ([sample(n, label=3 if n == 4 else 0) for n in range(10)], "sample 000000004: .cls is '3'; expected a number"),
        ([{k: v for k, v in sample(n).items() if k != "cls"} for n in range(10)], "has no .cls member"),
        ([{**sample(n), "png": b"text"} for n in range(10)], "sample 000000000: .png: not a valid PNG"),
    ],
    ids=["few", "many", "large", "label", "missing", "text"],
)
def test_shards_that_are_not_ganpipes(shards: Path, samples: list[dict], message: str) -> None:
    rewrite(shards, samples)
    with pytest.raises(GanpipeError, match=message) as caught:
        open_dataset(shards, "train")
    assert "train-000000.tar" in str(caught.value)


def test_no_such_split(flat_folder: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings) -> None:
    write_shards(settings_of(validation_fraction=0), folder_source(flat_folder), tmp_path / "out")
    with pytest.raises(GanpipeError, match=r"has no validation split \(it has train\); data\.validation_fraction"):
        open_dataset(tmp_path / "out", "validation")


def test_grey_images_without_labels(
    flat_folder: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    write_shards(settings_of(channels=1, validation_fraction=0), folder_source(flat_folder), tmp_path / "out")
    dataset = open_dataset(tmp_path / "out", "train")
    rows = dataset.rows(np.arange(60))
    assert set(rows) == {"image"}
    original = Image.open(flat_folder / "007.png").convert("L").resize((16, 16), Image.Resampling.LANCZOS)
    assert sum((image == np.asarray(original)).all() for image in rows["image"][:, 0]) == 1


def test_indices_outside_are_refused(shards: Path) -> None:
    dataset = open_dataset(shards, "train")
    for index in (-1, len(dataset)):
        with pytest.raises(IndexError, match="in a split of"):
            dataset.rows(np.array([0, index]))
    assert dataset.rows(np.array([], np.int64))["image"].shape == (0, 3, 16, 16)


def test_only_the_fields_that_are_asked_for(shards: Path) -> None:
    dataset = open_dataset(shards, "train")
    indices = np.arange(3)
    assert set(dataset.rows(indices)) == {"image", "label"}
    assert set(dataset.rows(indices, ["label"])) == {"label"}
    assert (dataset.rows(indices, ["label"])["label"] == dataset.rows(indices)["label"]).all()


def test_rows_are_copies(shards: Path) -> None:
    dataset = open_dataset(shards, "train")
    rows = dataset.rows(np.array([0]))
    rows["image"][:] = 7
    assert (dataset.rows(np.array([0]))["image"] != 7).any()


def test_a_dataset_is_not_sent_between_processes(shards: Path) -> None:
    with pytest.raises(TypeError, match="opened in each process"):
        pickle.dumps(open_dataset(shards, "train"))


def test_no_room(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = read_manifest(shards)
    grown = manifest.shards[0].model_copy(update={"num_samples": 10**11, "num_bytes": 2**50})
    write_manifest(shards, manifest.model_copy(update={"shards": (grown, *manifest.shards[1:])}))
    with pytest.raises(GanpipeError, match=r"takes [0-9.]+ GiB, [0-9.]+ GiB are free; set GANPIPE_CACHE"):
        open_dataset(ShardSet(str(shards), read="cache"), "train")


def test_a_cache_that_cannot_be_written(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GanpipeError, match=r"cannot be written .* set GANPIPE_CACHE"):
        open_dataset(shards, "train", tmp_path / "file")


def test_where_the_host_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GANPIPE_CACHE", str(tmp_path / "chosen"))
    assert host_cache() == tmp_path / "chosen"
    monkeypatch.delenv("GANPIPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert host_cache() == tmp_path / "xdg" / "ganpipe"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert host_cache() == tmp_path / ".cache" / "ganpipe"
