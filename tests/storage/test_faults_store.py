"""The object store refuses or damages an upload: noticed by digest, tried again, then a clear error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from faulty_store import Faults, faulty
from object_store import ObjectStore
from reliability import fault
from training_parts import make_loop

from ganpipe.errors import UnavailableError
from ganpipe.packaging.package import download_package
from ganpipe.registry.registration import Candidate, register
from ganpipe.registry.settings import RegisterSettings
from ganpipe.tracking import connection, runs
from ganpipe.tracking.read_back import Corrupted
from ganpipe.training import uploads
from ganpipe.training.state import CheckpointStore

pytestmark = pytest.mark.fault


@pytest.fixture
def store(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ObjectStore, Faults]]:
    """The store behind a proxy, found by this process's environment."""
    import fsspec
    from mlflow.store.artifact import s3_artifact_repo

    with faulty(object_store) as (seen, faults):
        for name, value in seen.environment.items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        s3_artifact_repo._cached_get_s3_client.cache_clear()  # else an earlier test's proxy is asked
        yield seen, faults
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.parametrize("how", ["refuse", "damage"])
def test_a_checkpoint_that_is_not_stored_is_sent_again(
    store: tuple[ObjectStore, Faults], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    monkeypatch.setattr(uploads, "WAITS_SECONDS", (0.0, 0.0, 0.0))
    seen, faults = store
    with fault(f"an S3 API that {how}s two uploads of a checkpoint") as trial:
        state = make_loop("gan").state
        checkpoints = CheckpointStore(seen.url(f"faulty-{how}/checkpoints"), keep=2)
        faults.part = "checkpoint-"
        setattr(faults, how, 2)
        trial.struck()
        checkpoints.save(state)
        trial.recovered()
        assert len(faults.struck) == 2
        assert capsys.readouterr().out.count("not stored") == 2
        there = checkpoints.load(0)["gan"]
        assert all(torch.equal(there[name], value) for name, value in state.gan.state_dict().items())


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("refuse", r"The store is closed for tests"),
        ("damage", r"Expected checksum"),
        ("damage unseen by the client", r"SHA-256 \w{12} instead of [\d,]+ of \w{12}"),
    ],
)
def test_a_store_that_never_keeps_a_checkpoint_is_named(
    store: tuple[ObjectStore, Faults], monkeypatch: pytest.MonkeyPatch, how: str, reason: str
) -> None:
    monkeypatch.setattr(uploads, "WAITS_SECONDS", (0.0, 0.0, 0.0))
    seen, faults = store
    how, _, unseen = how.partition(" ")
    if unseen:  # as stores that know no checksums
        for what in ("REQUEST_CHECKSUM_CALCULATION", "RESPONSE_CHECKSUM_VALIDATION"):
            monkeypatch.setenv(f"AWS_{what}", "when_required")
    with fault(f"an S3 API that {how}s every upload of a checkpoint") as trial:
        loop = make_loop("gan")
        checkpoints = CheckpointStore(seen.url(f"never-{how}{len(unseen)}/checkpoints"), keep=2)
        checkpoints.save(loop.state)
        faults.part = "checkpoint-"
        setattr(faults, how, -1)
        trial.struck()
        with pytest.raises(UnavailableError) as caught:
            checkpoints.save(loop.state)
        expected = rf"s3://ganpipe/never-{how}\d+/checkpoints/checkpoint-0+\.pt\.partial: .* in 4 tries: .*{reason}"
        assert re.search(expected, str(caught.value))
        assert "goes on from the last checkpoint" in str(caught.value)
        # What was there before is as it was, and a store that works again takes the next one.
        assert checkpoints.list() == [0]
        checkpoints.load(0)
        faults.none()
        checkpoints.save(loop.state)
        trial.recovered(lost="the images since the last checkpoint")


def _tracker(seen: ObjectStore, root: Path, name: str) -> runs.Tracker:
    """MLflow with its files in the bucket."""
    tracker = runs.Tracker(f"sqlite:///{root}/mlflow.db", name, str(root / "spool"))
    tracker.client().create_experiment(name, artifact_location=seen.url(f"mlflow-{name}"))
    return tracker


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("", r"does not give back what it was sent: .*File artifacts/generator\.safetensors .*Expected checksum"),
        ("unseen by the client", r"did not keep artifacts/generator\.safetensors as it was sent: SHA-256"),
    ],
)
def test_a_model_that_is_not_stored_whole_is_sent_again_or_not_registered(
    store: tuple[ObjectStore, Faults], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str, reason: str
) -> None:
    from registry_parts import build

    if how:  # as stores that know no checksums
        for what in ("REQUEST_CHECKSUM_CALCULATION", "RESPONSE_CHECKSUM_VALIDATION"):
            monkeypatch.setenv(f"AWS_{what}", "when_required")

    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 2.0)
    seen, faults = store
    tracker = _tracker(seen, tmp_path, "registry")
    package = build(tmp_path)
    settings = RegisterSettings(model_name="stored", metric="fid_x")
    faults.part = "generator.safetensors"
    with tracker.run("register", "k") as run:
        candidate = Candidate(package, {"fid_x": 3.0}, "p", run.run_id)
        with fault("an S3 API that damages every upload of a model") as trial:
            faults.damage = -1
            trial.struck()
            with pytest.raises(Corrupted, match=reason):
                register(candidate, settings, tracker, lambda version: {})
            assert tracker.client().search_model_versions("name = 'stored'") == []
            faults.none()
            done = register(candidate, settings, tracker, lambda version: {})
            trial.recovered()
        monkeypatch.setattr(connection, "PATIENCE_SECONDS", 60.0)
        with fault("an S3 API that damages one upload of a model") as trial:
            faults.damage = 1
            trial.struck()
            candidate = Candidate(package, {"fid_x": 2.0}, "p", run.run_id)
            again = register(candidate, settings, tracker, lambda version: {})
            trial.recovered()
    assert (done.version, again.version) == (1, 2)
    for version in (done.version, again.version):
        found = tracker.client().get_model_version("stored", str(version))
        downloaded = download_package(tracker, found, tmp_path / f"version-{version}")
        assert (downloaded / "generator.safetensors").read_bytes() == (package / "generator.safetensors").read_bytes()


def _dvc(root: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True)
    assert done.returncode == code, f"dvc {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.slow
def test_dvc_says_what_was_not_pushed_and_a_colleague_notices_what_came_damaged(
    store: tuple[ObjectStore, Faults], tmp_path: Path
) -> None:
    seen, faults = store
    mine = tmp_path / "mine"
    mine.mkdir()
    _dvc(mine, "init", "--no-scm", "--quiet")
    (mine / "data.bin").write_bytes(os.urandom(100_000))
    _dvc(mine, "add", "--quiet", "data.bin")
    _dvc(mine, "remote", "add", "--default", "store", seen.url("dvc"))
    _dvc(mine, "remote", "modify", "store", "verify", "true")
    with fault("an S3 API that refuses what `dvc push` uploads") as trial:
        faults.part = "files/md5"
        faults.refuse = -1
        trial.struck()
        said = _dvc(mine, "push", code=1)
        assert "failed to push" in said
        faults.none()
        assert "1 file pushed" in _dvc(mine, "push")
        trial.recovered()
    theirs = tmp_path / "theirs"
    with fault("an S3 API that damages what `dvc push` uploads") as trial:
        (mine / "data.bin").write_bytes(os.urandom(100_000))
        _dvc(mine, "add", "--quiet", "data.bin")
        faults.damage = 1
        trial.struck()
        _dvc(mine, "push")
        assert len(faults.struck) >= 2
        subprocess.run(["cp", "-r", str(mine), str(theirs)], check=True)
        for path in (theirs / "data.bin", theirs / ".dvc" / "cache"):
            subprocess.run(["rm", "-rf", str(path)], check=True)
        said = _dvc(theirs, "pull", code=1)
        digest = re.search(r"failed to transfer '(\w{32})' - Expected checksum", said)
        assert digest, said
        assert not (theirs / "data.bin").exists()
        # As docs/operations.md says: remove it there, and whoever has the data pushes it again.
        (key,) = [key for key in seen.keys("dvc/") if key.endswith(f"{digest[1][:2]}/{digest[1][2:]}")]
        seen.client.delete_object(Bucket="ganpipe", Key=key)
        assert "1 file pushed" in _dvc(mine, "push")
        _dvc(theirs, "pull")
        trial.recovered()
        assert (theirs / "data.bin").read_bytes() == (mine / "data.bin").read_bytes()
