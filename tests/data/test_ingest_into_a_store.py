"""Ingest into `data.store`: of more images than this disk holds, killed, and again after a change of the images."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from ganpipe.data.access.host_cache import BYTES_VARIABLE
from ganpipe.data.ingest import shards
from ganpipe.data.ingest.reading import Reading
from ganpipe.data.ingest.shard_writer import ImageStore, write_shard
from ganpipe.data.ingest.shards import IngestHistory, write_shards
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import SPLITS, Manifest
from ganpipe.data.shards.store import ShardStore
from ganpipe.data.sources.base import Item
from ganpipe.data.sources.folder import Folder, FolderSettings
from ganpipe.data.sources.webdataset import Webdataset, WebdatasetSettings
from ganpipe.errors import GanpipeError

Ingest = Callable[..., Manifest]
_LITTLE = 6_000
"""Bytes: a few of the images."""


@pytest.fixture
def ingest(
    class_folder: Path, tmp_path: Path, folder_source: Callable[..., Folder], settings_of: Callable[..., DataSettings]
) -> Ingest:
    """Ingests 36 images, at most 4 in a shard, into the store, or without it into another folder."""

    def run(stored: bool = True, **settings: object) -> Manifest:
        chosen = settings_of(**{"samples_per_shard": 4, "validation_fraction": 0.3, **settings})
        if not stored:
            return write_shards(chosen, folder_source(class_folder), tmp_path / "local")
        store, history = ShardStore(f"file://{tmp_path}/store"), IngestHistory(tmp_path / "notes")
        return write_shards(chosen, folder_source(class_folder), tmp_path / "out", history=history, store=store)

    return run


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A small disk; and the sizes that the temporary file of images has had."""
    sizes: list[int] = []
    flush = ImageStore.flush

    def measured(self: ImageStore) -> None:
        flush(self)
        sizes.append(os.fstat(self._spool.fileno()).st_size)

    monkeypatch.setattr(ImageStore, "flush", measured)
    monkeypatch.setenv(BYTES_VARIABLE, str(_LITTLE))
    return sizes


def shards_there(tmp_path: Path) -> set[str]:
    return {path.stem for path in (tmp_path / "store").rglob("*.tar")}


def has_all(tmp_path: Path, manifest: Manifest) -> bool:
    return {shard.sha256 for shard in manifest.shards} <= shards_there(tmp_path)


def test_more_images_than_the_disk_holds(
    ingest: Ingest, tmp_path: Path, little_room: list[int], decoded: list[int]
) -> None:
    manifest = ingest()
    sizes = [*little_room]
    num_decoded = len(decoded)
    assert manifest == ingest(stored=False)
    assert has_all(tmp_path, manifest)
    assert len(sizes) > 3  # parts
    assert 0 < sizes[0] <= _LITTLE / 2
    assert max(sizes) <= _LITTLE
    assert 36 < num_decoded < 2 * 36  # the images of the first half of the room were decoded once only


def test_more_deep_images_than_the_disk_holds(
    ingest: Ingest, class_folder: Path, tmp_path: Path, little_room: list[int]
) -> None:
    """The range of 16-bit images, which the whole dataset decides, holds for images that are decoded once more."""
    for number in range(12):
        values = np.random.default_rng(number).integers(0, 100 * (number + 1), (20, 20)).astype(np.uint16)
        Image.fromarray(values).save(class_folder / "a" / f"deep-{number}.png")
    manifest = ingest()
    assert len(little_room) > 3
    assert manifest == ingest(stored=False)
    assert has_all(tmp_path, manifest)


def spoil(paths: list[Path]) -> None:
    for path in paths:
        path.write_bytes(path.read_bytes() + b"more")


def copy_the_last(paths: list[Path]) -> None:
    for path in paths[:-1]:
        path.write_bytes(paths[-1].read_bytes())


def remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (spoil, "changed while ingest ran; run the same command again"),
        (copy_the_last, "changed while ingest ran; run the same command again"),
        (remove, "could be read at first, and cannot be now: cannot be read: No such file or directory"),
    ],
)
def test_images_that_change_meanwhile(
    change: Callable[[list[Path]], None],
    said: str,
    ingest: Ingest,
    class_folder: Path,
    tmp_path: Path,
    little_room: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = Reading.again

    def changing(self: Reading, positions: Sequence[int], what: str) -> object:
        change(sorted(class_folder.rglob("*.png")))
        return again(self, positions, what)

    monkeypatch.setattr(Reading, "again", changing)
    with pytest.raises(GanpipeError, match=rf"^[abc]/\d+\.png: {said}$"):
        ingest()
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_stream_that_has_fewer_images_meanwhile(
    tmp_path: Path, settings_of: Callable[..., DataSettings], draw: Callable[..., Path], little_room: list[int]
) -> None:
    class Shrinking(Folder):
        """A source that can only be read as a stream, and gives fewer items each time."""

        num_items = 40

        def items(self) -> Iterator[Item]:  # type: ignore[override]
            self.num_items -= 8
            yield from itertools.islice(super().items(), self.num_items)

    for number in range(40):
        draw(tmp_path / "images" / f"{number:03d}.png", number)
    source = Shrinking(FolderSettings(path=str(tmp_path / "images")))
    with pytest.raises(GanpipeError, match="^the source has fewer images now than when ingest began; run the same"):
        write_shards(settings_of(), source, tmp_path / "out", store=ShardStore(f"file://{tmp_path}/store"))


_KILLED = """
import os, sys
from pathlib import Path
from ganpipe.data.ingest import conversion
from ganpipe.data.ingest.shards import IngestHistory, write_shards
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.store import ShardStore
from ganpipe.data.sources.folder import Folder, FolderSettings

root, place, images, shards = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
left = {"images": images, "shards": shards}

def until(what, function):
    def called(*arguments):
        left[what] -= 1
        if left[what] < 0:
            os._exit(9)  # as by SIGKILL: nothing is written or closed
        return function(*arguments)
    return called

conversion.encode_png = until("images", conversion.encode_png)
ShardStore.move_in = until("shards", ShardStore.move_in)
settings = DataSettings(source="folder", image_size=16, channels=3, samples_per_shard=4, validation_fraction=0.3)
store, history = ShardStore(f"file://{root}/store"), IngestHistory(root / "notes")
write_shards(settings, Folder(FolderSettings(path=str(place))), root / "out", history=history, store=store)
"""


def kill(tmp_path: Path, class_folder: Path, images: int, shards: int) -> None:
    arguments = [sys.executable, "-c", _KILLED, str(tmp_path), str(class_folder), str(images), str(shards)]
    assert subprocess.run(arguments, check=False).returncode == 9


def test_killed_while_it_decodes_it_goes_on(
    ingest: Ingest, class_folder: Path, tmp_path: Path, decoded: list[int]
) -> None:
    kill(tmp_path, class_folder, 20, 100)
    assert not shards_there(tmp_path)
    manifest = ingest()
    assert len(decoded) == 36  # 16 at first, then the 20 whose images are gone
    assert manifest == ingest(stored=False)
    assert has_all(tmp_path, manifest)


def test_killed_while_it_moves_shards_it_goes_on(
    ingest: Ingest, class_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], decoded: list[int]
) -> None:
    kill(tmp_path, class_folder, 36, 7)
    there = shards_there(tmp_path)
    assert there
    manifest = ingest()
    num_decoded, said = len(decoded), capsys.readouterr().out
    assert manifest == ingest(stored=False)
    noted = [shard for shard in manifest.shards if shard.sha256 in there]
    assert 36 - sum(shard.num_samples for shard in noted) <= num_decoded < 36
    assert f" of {len(manifest.shards)} shards are new there" in said
    assert has_all(tmp_path, manifest)


def test_an_ingest_that_fails_keeps_what_it_has_moved(
    ingest: Ingest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[int]
) -> None:
    with monkeypatch.context() as patch:
        written = [0]

        def failing(*arguments: object) -> object:
            written[0] += 1
            if written[0] > 6:
                raise OSError("no more")
            return write_shard(*arguments)  # type: ignore[arg-type]

        patch.setattr(shards, "write_shard", failing)
        with pytest.raises(GanpipeError, match="no more"):
            ingest()
    there = shards_there(tmp_path)
    assert there
    decoded.clear()
    manifest = ingest()
    kept = [shard for shard in manifest.shards if shard.sha256 in there]
    assert len(kept) == len(there)
    assert len(decoded) == 36 - sum(shard.num_samples for shard in kept)


def test_equal_shards_of_two_splits(
    tmp_path: Path, draw: Callable[..., Path], settings_of: Callable[..., DataSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are one file in the store, and two threads write it at the same time."""

    class Twice(Folder):
        """Has each image in both splits."""

        def items(self) -> Iterator[Item]:  # type: ignore[override]
            for item, split in itertools.product(super().items(), SPLITS):
                yield item._replace(split=split)

    for number in range(4):
        draw(tmp_path / "images" / f"{number}.png", number)
    source = Twice(FolderSettings(path=str(tmp_path / "images")))
    put_file = LocalFileSystem.put_file

    def slow(self: LocalFileSystem, path: str, there: str, **options: object) -> None:
        put_file(self, path, there, **options)
        time.sleep(0.2)

    monkeypatch.setattr(LocalFileSystem, "put_file", slow)
    manifest = write_shards(settings_of(), source, tmp_path / "out", store=ShardStore(f"file://{tmp_path}/store"))
    assert [shard.split for shard in manifest.shards] == list(SPLITS)
    assert len({shard.sha256 for shard in manifest.shards}) == 1
    assert has_all(tmp_path, manifest)


def test_a_label_is_not_taken_for_a_text(tmp_path: Path, draw: Callable[..., Path]) -> None:
    """Two ingests of the same files whose samples have equal values, in files of other names."""
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for number in range(6):
            tar.add(draw(tmp_path / f"{number}.png", number), f"{number}.png")
            info = tarfile.TarInfo(f"{number}.cls")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"%d" % (number % 2)))
    history, store = IngestHistory(tmp_path / "notes"), ShardStore(f"file://{tmp_path}/store")
    settings = DataSettings(source="webdataset", image_size=16, channels=3)
    manifests = []
    for fields in ({"label": "cls", "classes": ["a", "b"]}, {"label": None, "text": "cls"}):
        source = Webdataset(WebdatasetSettings.model_validate({"path": str(tmp_path), "shards": ["all.tar"], **fields}))
        manifests.append(write_shards(settings, source, tmp_path / "out", history=history, store=store))
        assert manifests[-1] == write_shards(settings, source, tmp_path / "local")
    assert manifests[0].shards != manifests[1].shards


def test_again_decodes_and_writes_only_what_changed(
    ingest: Ingest,
    class_folder: Path,
    tmp_path: Path,
    draw: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    decoded: list[int],
) -> None:
    first = ingest()
    decoded.clear()
    assert ingest() == first
    assert not decoded
    assert f"data.store: 0 of {len(first.shards)} shards are new there" in capsys.readouterr().out
    draw(class_folder / "a" / "new.png", 99)
    second = ingest()
    assert len(decoded) <= 1 + 4  # the new image, and those of its shard
    assert second == ingest(stored=False)
    assert has_all(tmp_path, second)


def test_what_the_store_lost_is_made_again(ingest: Ingest, tmp_path: Path, decoded: list[int]) -> None:
    manifest = ingest()
    lost, cut, changed = manifest.shards[:3]
    for path in (tmp_path / "store").rglob("*.tar"):
        if path.stem == lost.sha256:
            path.unlink()
        if path.stem == cut.sha256:
            path.write_bytes(path.read_bytes()[:-512])
        if path.stem == changed.sha256:
            content = bytearray(path.read_bytes())
            content[600] ^= 1
            path.write_bytes(content)
    decoded.clear()
    assert ingest() == manifest
    assert len(decoded) == lost.num_samples + cut.num_samples + changed.num_samples
    assert has_all(tmp_path, manifest)
    assert all(
        path.stem == hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "store").rglob("*.tar")
    )


def test_other_settings_use_nothing_of_before(ingest: Ingest, decoded: list[int]) -> None:
    ingest()
    decoded.clear()
    ingest(background="white")
    assert len(decoded) == 36
    decoded.clear()
    ingest(samples_per_shard=40)
    assert len(decoded) == 36  # of images that no shard of this size holds


def test_a_damaged_journal_costs_work_only(ingest: Ingest, tmp_path: Path) -> None:
    manifest = ingest()
    for path in (tmp_path / "notes").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:300] + b"\n{no JSON\n" + content[300:-3])
    assert ingest() == manifest == ingest(stored=False)
