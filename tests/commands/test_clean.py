"""`ganpipe clean` removes what is idle and nothing else."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from ganpipe.commands import clean


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    (tmp_path / "repo" / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "repo")
    monkeypatch.setenv("GANPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def _file(path: Path, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 1000)
    then = time.time() - days * 86400
    os.utime(path, (then, then))
    return path


def test_idle_work_and_caches_go_and_the_rest_stays(checkout, capsys):
    old = [
        _file(checkout / "repo/.ganpipe/work/train-abandoned/checkpoint", 20),
        _file(checkout / "repo/.ganpipe/workspaces/failed/params.yaml", 20),
        _file(checkout / "cache/decoded/one-train/image.npy", 20),
        _file(checkout / "cache/mnist/train-images-idx3-ubyte", 20),
        _file(checkout / "cache/shards/0123/train-000000.tar", 20),
    ]
    kept = [
        _file(checkout / "repo/.ganpipe/work/train-busy/checkpoint", 1),
        _file(checkout / "repo/artifacts/train/generator.safetensors", 90),
        _file(checkout / "repo/.ganpipe/tracking/run.jsonl", 90),
        _file(checkout / "cache/decoded/two-train/image.npy", 3),
    ]
    own, shared = old[:2], old[2:]
    assert clean.main([]) == 0
    said = capsys.readouterr().out
    assert "5 folders, 0.0 MB; nothing was removed: `ganpipe clean --yes` removes what is this checkout's" in said
    assert "3 folders, 0.0 MB of these are the cache of this host, for all its checkouts" in said
    assert all(path.exists() for path in [*old, *kept])
    assert clean.main(["--cache"]) == 0
    assert "nothing was removed" in capsys.readouterr().out
    assert all(path.exists() for path in [*old, *kept])
    assert clean.main(["--yes"]) == 0
    said = capsys.readouterr().out
    assert "removed 2 folders" in said
    assert "`ganpipe clean --cache --yes` removes them, too" in said
    assert not any(path.parent.exists() for path in own)
    assert all(path.exists() for path in [*shared, *kept])
    assert clean.main(["--cache", "--yes"]) == 0
    assert "removed 3 folders" in capsys.readouterr().out
    assert not any(path.parent.exists() for path in old)
    assert all(path.exists() for path in kept)
    assert clean.main(["--yes"]) == 0
    assert capsys.readouterr().out == "nothing has been idle for 14 days\n"


def test_what_a_process_holds_stays(checkout, capsys):
    held = _file(checkout / "repo/.ganpipe/work/train-held/checkpoint", 20)
    with FileLock(checkout / "repo/.ganpipe/work/train-held.lock"):
        assert clean.main(["--yes"]) == 0
        assert "in use, so it stays" in capsys.readouterr().out
        assert held.exists()
    assert clean.main(["--yes"]) == 0
    assert not held.exists()


def test_what_another_checkout_reads_or_fetches_stays(checkout, capsys):
    read = _file(checkout / "cache/decoded/one-train/image.npy", 20)
    fetched = _file(checkout / "cache/mnist/train-images-idx3-ubyte", 20)
    with open(read, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        file.close()  # mapped, as a training has it
        with FileLock(fetched.with_name(".lock")):  # as whoever downloads holds it
            assert clean.main(["--cache", "--yes", "--days", "0"]) == 0
    said = capsys.readouterr().out
    assert said.count("in use, so it stays") == 2
    assert "removed 0 folders" in said
    assert read.exists()
    assert fetched.exists()


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "two"])
def test_days_that_are_none_remove_nothing(checkout, days):
    old = _file(checkout / "repo/.ganpipe/work/train-abandoned/checkpoint", 20)
    command = [sys.executable, "-m", "ganpipe", "clean", "--yes", f"--days={days}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(f"--days: got '{days}'; expected a number of days, 0 or more\n")
    assert old.exists()


def test_it_lists_beside_a_training_that_makes_room(checkout):
    """Another thread brings and removes shards all the time, as a training that streams does."""
    stop = threading.Event()
    shard = checkout / "cache/shards/0123/train-000000.tar"
    _file(checkout / "cache/shards/4567/train-000001.tar", 20)

    def make_room() -> None:
        while not stop.is_set():
            _file(shard, 20)
            shutil.rmtree(shard.parent)

    training = threading.Thread(target=make_room)
    training.start()
    try:
        for _ in range(300):
            assert [found.what for found in clean.leftovers(checkout / "repo")] == ["fetched shards"]
    finally:
        stop.set()
        training.join()
