"""`ganpipe clean` removes what is idle and nothing else."""

from __future__ import annotations

import os
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
    assert clean.main([]) == 0
    assert "5 folders, 0.0 MB; nothing was removed" in capsys.readouterr().out
    assert all(path.exists() for path in [*old, *kept])
    assert clean.main(["--yes"]) == 0
    assert "removed 5 folders" in capsys.readouterr().out
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
