"""Two runs with the same work: the second waits for the first; and how long work stays."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ganpipe.stages import work

WORK = """
import sys
from ganpipe.stages.work import work_folder
folder = work_folder(None, "train", "key")
print("mine", flush=True)
sys.stdin.readline()
"""


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORK], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_one_run_at_a_time_is_at_the_same_work(tmp_path):
    first = _start(tmp_path)
    assert first.stdout.readline() == "mine\n"
    second = _start(tmp_path)
    assert second.stdout.readline() == "another run is at the same work (train-key); waiting for it to end\n"
    first.kill()  # however it ends, its work is free
    assert second.stdout.readline() == "mine\n"
    second.stdin.write("\n")
    second.stdin.close()
    assert second.wait(timeout=60) == 0
    first.wait(timeout=60)


OUT = Path("artifacts/train/generator.safetensors")


def _dvc_takes(checkout: Path, content: bytes) -> None:
    """What DVC writes when a stage's outputs are its."""
    digest = hashlib.md5(content).hexdigest()
    out = {"path": str(OUT), "hash": "md5", "md5": digest}
    lock = {"schema": "2.0", "stages": {"train": {"cmd": "ganpipe train", "outs": [out]}}}
    (checkout / "dvc.lock").write_text(yaml.safe_dump(lock))


def _finish(checkout: Path, content: bytes) -> Path:
    """A stage that has written its outputs in `checkout`, and DVC has not taken them yet."""
    folder = Path(work.work_folder(None, "train", "key"))
    (folder / "checkpoint").write_bytes(b"a week of training")
    (checkout / OUT).parent.mkdir(parents=True, exist_ok=True)
    (checkout / OUT).write_bytes(content)
    work.mark_done(str(folder), [OUT])
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which runs' workspaces find their work; and each test's claims are its own."""
    monkeypatch.setenv("GANPIPE_CHECKOUT", str(tmp_path / "home"))
    monkeypatch.setattr(work, "_claims", {})
    for name in ("home", "one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    return tmp_path / "home"


def _let_go() -> None:
    """As the end of the process does."""
    for lock in work._claims.values():
        lock.release()


def test_work_stays_until_dvc_has_the_outputs(home: Path, tmp_path: Path) -> None:
    folder = _finish(tmp_path / "one", b"generator")
    _let_go()
    work.clear_done()
    assert (folder / "checkpoint").exists(), "killed before DVC took the outputs, they would have to be made again"
    _dvc_takes(tmp_path / "one", b"another generator")
    work.clear_done()
    assert (folder / "checkpoint").exists()
    _dvc_takes(tmp_path / "one", b"generator")
    work.clear_done()
    assert not folder.exists()
    assert [path.name for path in folder.parent.iterdir()] == ["train-key.lock"]


def test_a_second_run_takes_what_the_first_made(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _finish(tmp_path / "one", b"generator")
    _let_go()
    monkeypatch.chdir(tmp_path / "two")
    assert Path(work.work_folder(None, "train", "key")) == folder
    assert (folder / "checkpoint").exists()
    _dvc_takes(tmp_path / "one", b"generator")  # the first's next stage begins, while the second is at the work
    claims, work._claims = work._claims, {}
    work.clear_done()
    assert (folder / "checkpoint").exists(), "it was taken from under the second's hands"
    work._claims = claims


def test_a_forced_stage_begins_anew(home: Path, tmp_path: Path) -> None:
    folder = _finish(tmp_path / "one", b"generator")
    _dvc_takes(tmp_path / "one", b"generator")
    assert Path(work.work_folder(None, "train", "key")) == folder
    assert list(folder.iterdir()) == []


def test_the_work_of_a_workspace_that_is_gone_goes(home: Path, tmp_path: Path) -> None:
    folder = _finish(tmp_path / "one", b"generator")
    _let_go()
    (tmp_path / "one").rename(tmp_path / "gone")
    work.clear_done()
    assert not folder.exists()


def test_work_at_a_url_goes_too(home: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    folder = work.work_folder(url, "train", "key")
    assert folder == f"{url}/train-key"
    place = tmp_path / "store" / "train-key"
    place.mkdir(parents=True)
    (tmp_path / "one" / OUT).parent.mkdir(parents=True)
    (tmp_path / "one" / OUT).write_bytes(b"generator")
    work.mark_done(folder, [OUT])
    _let_go()
    _dvc_takes(tmp_path / "one", b"generator")
    work.clear_done()
    assert not place.exists()


def test_a_moved_checkout_and_a_copy_each_know_their_own_work(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    folder = _finish(home, b"generator")
    _let_go()
    copy = Path(shutil.copytree(home, tmp_path / "copy"))
    monkeypatch.setenv("GANPIPE_CHECKOUT", str(copy))
    monkeypatch.chdir(copy)
    _dvc_takes(copy, b"generator")
    _dvc_takes(home, b"generator")
    work.clear_done()
    assert not (copy / folder.relative_to(home)).exists()
    assert (folder / "checkpoint").exists(), "the copy removed the work of the other"
    moved = home.rename(tmp_path / "moved")
    monkeypatch.setenv("GANPIPE_CHECKOUT", str(moved))
    monkeypatch.chdir(moved)
    (moved / "dvc.lock").unlink()
    work.clear_done()
    assert (moved / folder.relative_to(home) / "checkpoint").exists(), "it was taken for that of a place that is gone"
    _dvc_takes(moved, b"generator")
    work.clear_done()
    assert not (moved / folder.relative_to(home)).exists()
