"""Ingesting again: the bytes of a fresh ingest, but only what is new is decoded, and only what changes is written."""

from __future__ import annotations

import hashlib
import itertools
import re
import shutil
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from ganpipe.data.ingest import previous, shards
from ganpipe.data.ingest.sample_index import SampleIndex
from ganpipe.data.ingest.shard_assignment import shard_sizes
from ganpipe.data.ingest.shards import IngestHistory, verify, write_shards
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import MANIFEST, Manifest
from ganpipe.data.sources.base import Source
from ganpipe.data.sources.folder import Folder
from ganpipe.errors import GanpipeError

Draw = Callable[..., Path]
MakeFolder = Callable[..., Folder]
MakeSettings = Callable[..., DataSettings]


def shards_of(digests: Sequence[bytes], limit: int) -> list[tuple[bytes, ...]]:
    ordered = sorted(digests)
    waiting = iter(ordered)

    def num_between(first: bytes, stop: bytes) -> int:
        return bisect_left(ordered, stop) - bisect_left(ordered, first)

    sizes = shard_sizes(len(ordered), num_between, limit)
    return [tuple(itertools.islice(waiting, size)) for size in sizes]


def random_digests(number: int, seed: int = 0) -> list[bytes]:
    return [hashlib.sha256(f"{seed} {n}".encode()).digest()[:16] for n in range(number)]


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=60), st.integers(1, 9))
def test_every_sample_lies_in_one_shard(digests: list[bytes], limit: int) -> None:
    shards = shards_of(digests, limit)
    assert [digest for shard in shards for digest in shard] == sorted(digests)
    assert all(1 <= len(shard) <= limit for shard in shards)


@given(
    st.lists(st.binary(min_size=16, max_size=16), unique=True, max_size=60),
    st.binary(min_size=16, max_size=16),
    st.integers(1, 9),
)
def test_one_sample_more_changes_one_shard_or_splits_it(digests: list[bytes], more: bytes, limit: int) -> None:
    before = set(shards_of(digests, limit))
    after = set(shards_of([*digests, more], limit))
    if more in digests:
        return
    assert len(before - after) <= 1
    changed = {digest for shard in after - before for digest in shard}
    assert changed == {digest for shard in before - after for digest in shard} | {more}


@pytest.mark.parametrize("number", [1, 99, 100, 101, 199, 200, 201, 1599, 1600, 1601])
def test_sizes_near_the_limit(number: int) -> None:
    """All but a few shards are at least a third full, wherever the number stands between two powers of two."""
    sizes = [len(shard) for shard in shards_of(random_digests(number), 100)]
    assert sum(sizes) == number
    assert max(sizes) <= 100
    assert len(sizes) <= max(1, 3 * number // 100)


def test_sixty_thousand_grow_by_one() -> None:
    digests = random_digests(60_000)
    before = shards_of(digests, 5000)
    assert 12 <= len(before) <= 16
    changes = []
    for more in random_digests(20, seed=1):
        after = shards_of([*digests, more], 5000)
        changes.append(len(set(after) - set(before)))
    assert set(changes) == {1}


def test_more_copies_of_one_image_than_a_shard_holds() -> None:
    assert [len(shard) for shard in shards_of([b"x" * 16] * 25 + [b"y" * 16], 10)] == [10, 10, 5, 1]


class Again:
    """Ingests a folder again and again into one output, each time compared with a fresh ingest."""

    def __init__(
        self, root: Path, settings: DataSettings, capsys: pytest.CaptureFixture[str], stores: tuple[Path, ...] = ()
    ) -> None:
        self.root, self.settings, self._capsys = root, settings, capsys
        self.out = root / "out"
        self.memory = IngestHistory(root / "notes", stores)
        self._fresh = 0

    def ingest(self, source: Callable[[], Source], num_processes: int | None = 1) -> tuple[Manifest, str]:
        """The manifest, and the line that says what changed ("" where nothing was known)."""
        self._capsys.readouterr()
        manifest = write_shards(self.settings, source(), self.out, num_processes, self.memory)
        said = [line for line in self._capsys.readouterr().out.splitlines() if "shards rewritten" in line]
        self._fresh += 1
        fresh = self.root / f"fresh-{self._fresh}"
        write_shards(self.settings, source(), fresh, num_processes=1)
        assert files(self.out) == files(fresh)
        verify(self.out)
        return manifest, "".join(said)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def inodes(folder: Path) -> set[tuple[int, int]]:
    return {(path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.tar")}


@pytest.fixture
def many(tmp_path: Path, draw: Draw) -> Path:
    """A hundred images in two classes."""
    for number in range(100):
        draw(tmp_path / "many" / "ac"[number % 2] / f"{number:03d}.png", number)
    return tmp_path / "many"


@pytest.fixture
def again(tmp_path: Path, settings_of: MakeSettings, capsys: pytest.CaptureFixture[str]) -> Again:
    return Again(tmp_path, settings_of(samples_per_shard=10, validation_fraction=0.2), capsys)


def test_added_and_removed_images(
    again: Again, many: Path, draw: Draw, folder_source: MakeFolder, decoded: list[int]
) -> None:
    source = lambda: folder_source(many)  # noqa: E731
    first, said = again.ingest(source)
    assert said == ""
    assert len(decoded) == 200  # and as many for the fresh one
    before = inodes(again.out)
    for number in (200, 201, 202):
        draw(many / "a" / f"0-{number}.png", number)  # before the others by name
    (many / "c" / "051.png").unlink()
    decoded.clear()
    manifest, said = again.ingest(source)
    assert len(decoded) == 3 + 102
    found = re.fullmatch(r"3 images added, 1 removed: (\d+) of (\d+) shards rewritten", said)
    assert found is not None, said
    assert int(found[2]) == len(manifest.shards)
    assert 1 <= int(found[1]) <= 8 < len(first.shards)
    assert len(inodes(again.out) - before) == int(found[1])  # the others are the same files still
    assert sum(shard.num_samples for shard in manifest.shards) == 102


def test_nothing_new(again: Again, many: Path, folder_source: MakeFolder, decoded: list[int]) -> None:
    again.ingest(lambda: folder_source(many))
    before = inodes(again.out)
    decoded.clear()
    manifest, said = again.ingest(lambda: folder_source(many))
    assert said == f"0 images added, 0 removed: 0 of {len(manifest.shards)} shards rewritten"
    assert len(decoded) == 100  # of the fresh one
    assert inodes(again.out) == before


def test_renamed_images_are_the_same(again: Again, many: Path, folder_source: MakeFolder) -> None:
    again.ingest(lambda: folder_source(many))
    for path in list((many / "a").iterdir()):
        path.rename(path.with_name(f"z{path.name}"))
    _, said = again.ingest(lambda: folder_source(many))
    assert said.startswith("0 images added, 0 removed: 0 of ")


def test_a_class_in_between_changes_labels_but_decodes_nothing(
    again: Again, many: Path, draw: Draw, folder_source: MakeFolder, decoded: list[int]
) -> None:
    again.ingest(lambda: folder_source(many))
    draw(many / "b" / "new.png", 300)
    decoded.clear()
    manifest, said = again.ingest(lambda: folder_source(many))
    assert manifest.classes == ("a", "b", "c")
    assert said.startswith("1 image added, 0 removed: ")
    assert len(decoded) == 1 + 101


def test_copies_of_an_image(again: Again, many: Path, folder_source: MakeFolder, decoded: list[int]) -> None:
    again.ingest(lambda: folder_source(many))
    for number in range(25):
        shutil.copy(many / "a" / "002.png", many / ("a" if number % 2 else "c") / f"copy-{number}.png")
    decoded.clear()
    manifest, said = again.ingest(lambda: folder_source(many))
    assert said.startswith("25 images added, 0 removed: ")
    assert len(decoded) == 125
    urls = [str(again.out / shard.name) for shard in manifest.shards]
    keys = [sample["__key__"] for sample in webdataset.WebDataset(urls, shardshuffle=False)]
    assert len(keys) == len(set(keys)) == 125
    (many / "a" / "002.png").unlink()
    _, said = again.ingest(lambda: folder_source(many))
    assert said.startswith("0 images added, 1 removed: ")


def test_in_several_processes(again: Again, many: Path, draw: Draw, folder_source: MakeFolder) -> None:
    again.ingest(lambda: folder_source(many), num_processes=2)
    draw(many / "a" / "new.png", 400)
    _, said = again.ingest(lambda: folder_source(many), num_processes=2)
    assert said.startswith("1 image added, 0 removed: ")


@pytest.mark.parametrize(
    "change",
    [
        {"background": "white"},
        {"image_size": 8},
        {"channels": 1},
        {"shape": "pad"},
        {"enlarge": "resize"},
        {"max_pixels": 9999},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_use_nothing_of_before(
    change: dict[str, object],
    again: Again,
    many: Path,
    folder_source: MakeFolder,
    settings_of: MakeSettings,
    decoded: list[int],
) -> None:
    again.ingest(lambda: folder_source(many))
    again.settings = settings_of(samples_per_shard=10, validation_fraction=0.2, **change)
    decoded.clear()
    _, said = again.ingest(lambda: folder_source(many))
    assert said == ""
    assert len(decoded) == 200


@pytest.mark.parametrize("change", [{"samples_per_shard": 30}, {"validation_fraction": 0.5}, {"limit": 40}])
def test_settings_of_the_arrangement_decode_nothing(
    change: dict[str, object],
    again: Again,
    many: Path,
    folder_source: MakeFolder,
    settings_of: MakeSettings,
    decoded: list[int],
) -> None:
    again.ingest(lambda: folder_source(many))
    again.settings = settings_of(**{"samples_per_shard": 10, "validation_fraction": 0.2, **change})
    decoded.clear()
    _, said = again.ingest(lambda: folder_source(many))
    assert said.startswith("0 images added, 60 removed" if "limit" in change else "0 images added, 0 removed")
    assert len(decoded) == (40 if "limit" in change else 100)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-512]),
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
    ],
    ids=["flipped", "short", "gone", "empty"],
)
def test_a_damaged_shard_is_not_trusted(
    damage: Callable[[Path], object], again: Again, many: Path, folder_source: MakeFolder, decoded: list[int]
) -> None:
    first, _ = again.ingest(lambda: folder_source(many))
    damage(again.out / first.shards[1].name)
    decoded.clear()
    _, said = again.ingest(lambda: folder_source(many))
    lost = first.shards[1].num_samples
    assert said == (
        f"1 shard(s) of the last ingest are gone or damaged: {lost} images decoded, "
        f"1 of {len(first.shards)} shards rewritten"
    )
    assert len(decoded) == lost + 100


def test_a_manifest_that_lies_is_not_asked(again: Again, many: Path, folder_source: MakeFolder) -> None:
    """What counts is the note of what was written here, not what somebody put into the folder since."""
    again.ingest(lambda: folder_source(many))
    (again.out / MANIFEST).write_text("{}")
    _, said = again.ingest(lambda: folder_source(many))
    assert said.startswith("0 images added, 0 removed: 0 of ")


@pytest.mark.parametrize("text", ["", "{", '{"shards": [{"name": "../../etc/passwd"}]}', "[]"])
def test_a_damaged_note_means_a_fresh_ingest(
    text: str, again: Again, many: Path, folder_source: MakeFolder, decoded: list[int]
) -> None:
    again.ingest(lambda: folder_source(many))
    (note,) = again.memory.notes.glob("*.json")
    note.write_text(text)
    decoded.clear()
    _, said = again.ingest(lambda: folder_source(many))
    assert said == ""
    assert len(decoded) == 200


def test_shards_are_found_in_a_store_where_the_output_was_removed(
    tmp_path: Path,
    many: Path,
    draw: Draw,
    folder_source: MakeFolder,
    settings_of: MakeSettings,
    capsys: pytest.CaptureFixture[str],
    decoded: list[int],
) -> None:
    """As under DVC, which keeps files under their MD5 and removes a stage's outputs before it runs."""
    store = tmp_path / "store"
    again = Again(tmp_path, settings_of(samples_per_shard=10), capsys, stores=(tmp_path / "absent", store))
    again.ingest(lambda: folder_source(many))
    for path in again.out.glob("*.tar"):
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        (store / md5[:2]).mkdir(parents=True, exist_ok=True)
        (store / md5[:2] / md5[2:]).write_bytes(path.read_bytes())
        (store / md5[:2] / md5[2:]).chmod(0o444)
    kept = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    shutil.rmtree(again.out)
    draw(many / "a" / "new.png", 500)
    decoded.clear()
    _, said = again.ingest(lambda: folder_source(many))
    assert re.fullmatch(r"1 image added, 0 removed: [12] of \d+ shards rewritten", said), said
    assert len(decoded) == 1 + 101
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == kept
    assert all(path.stat().st_nlink == 1 for path in again.out.iterdir())  # copies: the store's files are its own


def test_an_ingest_that_was_killed_while_it_published(
    again: Again, many: Path, draw: Draw, folder_source: MakeFolder
) -> None:
    first, _ = again.ingest(lambda: folder_source(many))
    (again.out / MANIFEST).unlink()
    names = [shard.name for shard in first.shards]
    (again.out / names[0]).rename(again.out / f".partial-{names[0]}")
    (again.out / names[1]).rename(again.out / names[0])
    draw(many / "a" / "new.png", 600)
    _, said = again.ingest(lambda: folder_source(many))
    assert said.startswith("2 shard(s) of the last ingest are gone or damaged: ")
    assert not list(again.out.glob(".partial-*"))


def test_a_failed_ingest_leaves_the_last_one_as_it_was(
    again: Again, many: Path, folder_source: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = again.ingest(lambda: folder_source(many))
    before = files(again.out)
    (many / "a" / "bad.png").write_text("no image")
    with pytest.raises(GanpipeError, match=r"bad\.png: not an image"):
        again.ingest(lambda: folder_source(many))
    assert files(again.out) == before
    (many / "a" / "bad.png").unlink()
    for path in list((many / "c").iterdir())[:9]:
        path.unlink()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "write_manifest", full)
    monkeypatch.setattr(previous.PreviousIngest, "reuse", full)
    with pytest.raises(GanpipeError, match="cannot write its shards: No space left"):
        again.ingest(lambda: folder_source(many))
    assert files(again.out) == before

    def full_elsewhere(*arguments: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(SampleIndex, "sort", full_elsewhere)
    with pytest.raises(GanpipeError, match=r"temporary files \(database or disk is full\); set TMPDIR"):
        again.ingest(lambda: folder_source(many))
    assert files(again.out) == before
    assert verify(again.out) == first


def test_old_notes_are_forgotten(
    again: Again, many: Path, folder_source: MakeFolder, monkeypatch: pytest.MonkeyPatch, settings_of: MakeSettings
) -> None:
    monkeypatch.setattr(previous, "_NUM_NOTES_KEPT", 2)
    for size in (8, 9, 10):
        again.settings = settings_of(image_size=size)
        again.ingest(lambda: folder_source(many))
    assert len(list(again.memory.notes.glob("*"))) == 2


def test_a_source_that_is_read_as_it_comes(
    tmp_path: Path, settings_of: MakeSettings, capsys: pytest.CaptureFixture[str], decoded: list[int]
) -> None:
    import gzip

    import numpy as np

    from ganpipe.data.sources.webdataset import Webdataset, WebdatasetSettings

    def write(numbers: range) -> None:
        plain = tmp_path / "x.tar"
        with webdataset.TarWriter(str(plain)) as writer:
            for number in numbers:
                pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
                writer.write({"__key__": f"{number}", "png": pixels, "txt": f"image {number}"})
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / "x.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))

    again = Again(tmp_path, settings_of(source="webdataset", samples_per_shard=10), capsys)
    source = lambda: Webdataset(WebdatasetSettings(path=str(tmp_path / "in"), shards=("*.tar.gz",), text="txt"))  # noqa: E731
    write(range(40))
    again.ingest(source)
    write(range(2, 43))
    decoded.clear()
    _, said = again.ingest(source)
    assert said.startswith("3 images added, 2 removed: ")
    assert len(decoded) == 3 + 41
