"""Ingest: the same bytes every time, read by any WebDataset client, complete or not there; damage is named."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import webdataset
from manifest_parts import of_images
from PIL import Image

from ganpipe.data.images.decoding import fit
from ganpipe.data.ingest.shards import read_manifest, split_of, verify, write_shards
from ganpipe.data.parallel import rare_collections
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import MANIFEST, Manifest, write_manifest
from ganpipe.data.sources.base import Description, EncodedFile, Item, Pictures, Source, SourceSettings
from ganpipe.data.sources.folder import Folder
from ganpipe.data.sources.mnist import Mnist, MnistSettings
from ganpipe.errors import GanpipeError
from ganpipe.fields import Picture

Draw = Callable[..., Path]
MakeFolder = Callable[..., Folder]
MakeSettings = Callable[..., DataSettings]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def splits_by_pixels(folder: Path) -> dict[bytes, str]:
    """The split of each PNG member."""
    found = {}
    for shard in read_manifest(folder).shards:
        with tarfile.open(folder / shard.name) as archive:
            for member in archive:
                if member.name.endswith(".png"):
                    found[archive.extractfile(member).read()] = shard.split  # type: ignore[union-attr]
    return found


def test_any_webdataset_client_reads_them(
    class_folder: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    out = tmp_path / "shards"
    manifest = write_shards(settings_of(samples_per_shard=10, validation_fraction=0), folder_source(class_folder), out)
    assert [shard.name for shard in manifest.shards] == [f"train-{n:06d}.tar" for n in range(len(manifest.shards))]
    assert all(shard.num_samples <= 10 for shard in manifest.shards)
    assert 36 == manifest.num_samples("train") >= 5 * len(manifest.shards)
    urls = [str(out / shard.name) for shard in manifest.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("__key__", "png", "cls"))
    keys = [key for key, _, _ in samples]
    assert keys == sorted(set(keys))
    assert len(keys) == 36
    found = {(image.tobytes(), label) for _, image, label in samples}
    settings = settings_of()
    for path in class_folder.rglob("*.png"):
        assert (fit(Image.open(path), settings).tobytes(), "abc".index(path.parent.name)) in found
    assert {(image.mode, image.size) for _, image, _ in samples} == {("RGB", (16, 16))}
    assert manifest.classes == ("a", "b", "c")
    assert manifest.fields == of_images(16, 3, "abc")["fields"]


def test_members_are_plain(
    class_folder: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    manifest = write_shards(settings_of(validation_fraction=0), folder_source(class_folder), tmp_path / "shards")
    with tarfile.open(tmp_path / "shards" / manifest.shards[0].name) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    assert not any(member.pax_headers for member in members)


def test_same_bytes_again_and_with_any_number_of_processes(
    class_folder: Path, tmp_path: Path, draw: Draw, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    for number in range(36, 300):
        draw(class_folder / "abc"[number % 3] / f"{number:03d}.png", number)
    settings = settings_of(samples_per_shard=70, validation_fraction=0.2)
    made = []
    for number, num_processes in enumerate((1, 2, 1)):
        manifest = write_shards(settings, folder_source(class_folder), tmp_path / str(number), num_processes)
        made.append((manifest.digest, contents(tmp_path / str(number))))
    assert made[0] == made[1] == made[2]
    assert str(tmp_path).encode() not in made[0][1][MANIFEST]


def test_manifest_survives_the_disk_and_its_digest_covers_all(
    class_folder: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    manifest = write_shards(settings_of(), folder_source(class_folder), tmp_path / "shards")
    assert read_manifest(tmp_path / "shards") == manifest == verify(tmp_path / "shards")
    digests = {manifest.digest}
    shard = manifest.shards[0].model_copy(update={"sha256": "0" * 64})
    for change in ({"licence": "other"}, {"skipped": ("x",)}, {"shards": (shard, *manifest.shards[1:])}):
        digests.add(manifest.model_copy(update=change).digest)
    assert len(digests) == 4


def test_adding_images_moves_none_between_splits(
    flat_folder: Path, tmp_path: Path, draw: Draw, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    settings = settings_of(validation_fraction=0.3)
    write_shards(settings, folder_source(flat_folder), tmp_path / "before")
    for number in range(60, 100):
        draw(flat_folder / f"{'a' if number % 2 else 'z'}{number:03d}.png", number)  # before and after the others
    (flat_folder / "000.png").rename(flat_folder / "renamed.png")
    write_shards(settings, folder_source(flat_folder), tmp_path / "after")
    before, after = splits_by_pixels(tmp_path / "before"), splits_by_pixels(tmp_path / "after")
    assert set(before.values()) == {"train", "validation"}
    assert len(after) > len(before) + 30
    assert {pixels: after[pixels] for pixels in before} == before


def test_the_split_is_random_enough_and_monotone() -> None:
    images = [[str(number).encode()] for number in range(20_000)]
    small = [split_of(image, 0.1) == "validation" for image in images]
    large = [split_of(image, 0.3) == "validation" for image in images]
    assert abs(np.mean(small) - 0.1) < 0.01
    assert abs(np.mean(large) - 0.3) < 0.01
    assert all(later for previous, later in zip(small, large, strict=True) if previous)


def test_copies_stay_together(tmp_path: Path, draw: Draw, folder_source: MakeFolder, settings_of: MakeSettings) -> None:
    for number in range(40):
        for copy in "xy":
            draw(tmp_path / "images" / f"{copy}{number}.png", number)
    manifest = write_shards(settings_of(validation_fraction=0.5), folder_source(tmp_path / "images"), tmp_path / "out")
    assert manifest.num_samples("train") % 2 == manifest.num_samples("validation") % 2 == 0
    assert manifest.num_samples("validation") > 0


def test_limit_mixes_and_grows(
    class_folder: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    chosen = []
    for limit in (9, 18):
        settings = settings_of(limit=limit, validation_fraction=0)
        manifest = write_shards(settings, folder_source(class_folder), tmp_path / str(limit))
        assert manifest.num_samples("train") == limit
        chosen.append(set(splits_by_pixels(tmp_path / str(limit))))
    assert chosen[0] < chosen[1]


def test_mnist_keeps_its_pixels(tmp_path: Path, write_idx: Callable[..., np.ndarray]) -> None:
    images_NHW = write_idx(tmp_path / "idx", 40)
    settings = DataSettings(validation_fraction=0)
    manifest = write_shards(settings, Mnist(MnistSettings(path=str(tmp_path / "idx"))), tmp_path / "out")
    url = str(tmp_path / "out" / manifest.shards[0].name)
    samples = list(webdataset.WebDataset([url], shardshuffle=False).decode("l8").to_tuple("png", "cls"))
    found = {(pixels.tobytes(), label) for pixels, label in samples}
    assert found == {(np.pad(image_HW, 2).tobytes(), number % 10) for number, image_HW in enumerate(images_NHW)}


def test_an_earlier_ingest_leaves_nothing_behind(
    flat_folder: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    out = tmp_path / "shards"
    write_shards(settings_of(samples_per_shard=5), folder_source(flat_folder), out)
    (out / "notes.txt").write_text("not ours")
    manifest = write_shards(settings_of(samples_per_shard=50), folder_source(flat_folder), out)
    assert set(contents(out)) == {MANIFEST, "notes.txt", *(shard.name for shard in manifest.shards)}


BAD_IMAGES = {
    "truncated": (lambda path, draw: path.write_bytes(draw(path, 1).read_bytes()[:150]), "truncated"),
    "text": (lambda path, draw: path.write_text("hello, this is text" * 9), "not an image"),
    "empty": (lambda path, draw: path.write_bytes(b""), "the file is empty"),
    "large": (lambda path, draw: Image.new("1", (30_000, 3_000)).save(path), "30000 x 3000 = 90,000,000 pixels"),
    "link": (lambda path, draw: path.symlink_to("nowhere"), "cannot be read: No such file"),
    "pipe": (lambda path, draw: os.mkfifo(path), "not a regular file"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
@pytest.mark.parametrize("num_processes", [1, 2])
def test_unreadable_images_stop_the_ingest_or_are_listed(
    kind: str,
    num_processes: int,
    flat_folder: Path,
    tmp_path: Path,
    draw: Draw,
    folder_source: MakeFolder,
    settings_of: MakeSettings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil, reason = BAD_IMAGES[kind]
    spoil(flat_folder / "bad.png", draw)
    with pytest.raises(GanpipeError) as caught:
        write_shards(settings_of(), folder_source(flat_folder), tmp_path / "out", num_processes)
    assert str(caught.value).startswith("bad.png: ")
    assert reason in str(caught.value)
    assert "data.unreadable" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / MANIFEST).exists()
    manifest = write_shards(settings_of(unreadable="skip"), folder_source(flat_folder), tmp_path / "out", num_processes)
    assert manifest.skipped == ("bad.png",)
    assert manifest.num_samples("train") + manifest.num_samples("validation") == 60
    printed = capsys.readouterr().err
    assert "skipped 1 unreadable" in printed
    assert f"bad.png: {reason}" in printed or reason in printed


def test_sixteen_bit_and_cmyk_files_are_taken(
    tmp_path: Path, draw: Draw, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    draw(tmp_path / "in" / "cmyk.jpg", 3, mode="CMYK")
    Image.fromarray(np.full((16, 16), 40_000, np.uint16)).save(tmp_path / "in" / "deep.png")
    manifest = write_shards(settings_of(validation_fraction=0), folder_source(tmp_path / "in"), tmp_path / "out")
    samples = list(
        webdataset.WebDataset([str(tmp_path / "out" / manifest.shards[0].name)], shardshuffle=False)
        .decode("rgb8")
        .to_tuple("png")
    )
    assert len(samples) == 2
    assert any((pixels == round(40_000 / 257)).all() for (pixels,) in samples)


def test_nothing_readable(tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("text")
    with pytest.raises(GanpipeError, match=r"no image is left for training \(1 unreadable, 0 in the validation split"):
        write_shards(settings_of(unreadable="skip"), folder_source(tmp_path / "in"), tmp_path / "out")


def test_a_disk_that_cannot_be_written(
    flat_folder: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GanpipeError, match="cannot write its shards"):
        write_shards(settings_of(), folder_source(flat_folder), tmp_path / "file" / "out")


KILLED = """
import sys
from pathlib import Path
from ganpipe.data.parallel import rare_collections
from ganpipe.data.settings import DataSettings
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.sources.mnist import Mnist, MnistSettings
if __name__ == "__main__":
    source = Mnist(MnistSettings(path=sys.argv[1]))
    write_shards(DataSettings(samples_per_shard=300), source, Path(sys.argv[2]), int(sys.argv[3]))
"""


def children_of(pid: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def spool_bytes(pid: int, folder: Path) -> int:
    """Size of the file without a name that a process has open in `folder`."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith(f"{folder}/") and os.readlink(link).endswith(" (deleted)"):
                return link.stat().st_size
    return 0


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_killed_ingest_leaves_the_earlier_one_and_no_processes(
    tmp_path: Path, write_idx: Callable[..., np.ndarray], num_processes: int
) -> None:
    write_idx(tmp_path / "idx", 60_000)
    out = tmp_path / "out"
    write_idx(tmp_path / "few", 50)
    before = write_shards(DataSettings(), Mnist(MnistSettings(path=str(tmp_path / "few"))), out)
    script = tmp_path / "ingest.py"
    script.write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "idx"), str(out), str(num_processes)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    # The processes of a pool start one after the other.
    while len(children_of(process.pid)) < num_processes if num_processes > 1 else not spool_bytes(process.pid, out):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert verify(out) == before
    assert {path.name for path in out.iterdir()} == {MANIFEST, *(shard.name for shard in before.shards)}
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def shards(flat_folder: Path, tmp_path: Path, folder_source: MakeFolder, settings_of: MakeSettings) -> Path:
    write_shards(settings_of(samples_per_shard=20, validation_fraction=0), folder_source(flat_folder), tmp_path / "out")
    return tmp_path / "out"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, r"train-000001\.tar: damaged: its SHA-256 is"),
        (lambda path: path.write_bytes(path.read_bytes()[:-512]), r"train-000001\.tar: cut short: "),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), r"train-000001\.tar: too long: "),
        (lambda path: path.unlink(), r"train-000001\.tar: missing, but the manifest lists it"),
    ],
    ids=["flipped", "short", "long", "missing"],
)
def test_damaged_shards_are_named(shards: Path, damage: Callable[[Path], object], message: str) -> None:
    verify(shards)
    damage(shards / "train-000001.tar")
    with pytest.raises(GanpipeError, match=message):
        verify(shards)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: text.replace('"format_version": 2', '"format_version": 3'), "format_version"),
        (lambda text: text.replace("train-000000.tar", "../../etc/passwd"), r"shards\.0\.name"),
        (lambda text: text.replace("train-000000.tar", "/dev/zero"), r"shards\.0\.name"),
        (lambda text: text.replace("train-000000.tar", "train-000001.tar"), "listed twice"),
        (lambda text: "[]", "not a manifest"),
    ],
)
def test_bad_manifests(shards: Path, change: Callable[[str], str], message: str) -> None:
    path = shards / MANIFEST
    path.write_text(change(path.read_text()))
    with pytest.raises(GanpipeError, match=message) as caught:
        read_manifest(shards)
    assert str(path) in str(caught.value)


class Pairs(Source):
    """Two images a sample, as a paired source will give."""

    Settings = SourceSettings

    def __init__(self, settings: SourceSettings, paths: Sequence[tuple[Path, Path]] = ()) -> None:
        self._paths = paths

    def check(self) -> None:
        assert self._paths

    def fingerprint(self) -> str:
        return str(len(self._paths))

    def describe(self) -> Description:
        return Description({"source": Pictures(), "target": Pictures(size=8)}, text="Pairs.", licence="CC0")

    def items(self) -> Sequence[Item]:
        return [
            Item(str(number), {"source": EncodedFile(source), "target": EncodedFile(target)})
            for number, (source, target) in enumerate(self._paths)
        ]


def test_samples_may_hold_several_images(tmp_path: Path, draw: Draw, settings_of: MakeSettings) -> None:
    paths = [(draw(tmp_path / f"{n}a.png", n, (20, 20)), draw(tmp_path / f"{n}b.png", n + 50)) for n in range(5)]
    manifest = write_shards(settings_of(validation_fraction=0), Pairs(SourceSettings(), paths), tmp_path / "out")
    assert manifest.fields == {"source": Picture(size=16, channels=3), "target": Picture(size=8, channels=3)}
    assert manifest.main == "source"
    (shard,) = manifest.shards
    samples = list(webdataset.WebDataset([str(tmp_path / "out" / shard.name)], shardshuffle=False))
    assert len(samples) == 5
    assert Image.open(io.BytesIO(samples[3]["source.png"])).size == (16, 16)
    assert Image.open(io.BytesIO(samples[3]["target.png"])).size == (8, 8)
    assert samples[3]["source.png"] != samples[3]["target.png"]


def test_write_manifest_is_what_read_manifest_reads(shards: Path, tmp_path: Path) -> None:
    manifest = read_manifest(shards)
    (tmp_path / "copy").mkdir()
    write_manifest(tmp_path / "copy", manifest)
    assert (tmp_path / "copy" / MANIFEST).read_bytes() == (shards / MANIFEST).read_bytes()
    assert isinstance(read_manifest(tmp_path / "copy"), Manifest)


def test_garbage_is_collected_as_before_once_ingest_has_ended() -> None:
    before = gc.get_threshold()
    with rare_collections():
        assert gc.get_threshold()[0] > before[0]
    with pytest.raises(GanpipeError), rare_collections():
        raise GanpipeError("an error")
    assert gc.get_threshold() == before
