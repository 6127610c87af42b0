"""What work on several hosts needs, known before it starts: addresses that all reach, and shards in the DVC remote."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.cli import main as dvc
from projects import SOURCE, save_image
from training_parts import blobs

from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import MANIFEST, read_manifest
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.data.sources.folder import Folder
from ganpipe.errors import EXIT_MENDABLE, GanpipeError, UnavailableError
from ganpipe.params import load_params
from ganpipe.stages.common import SHARDS
from ganpipe.stages.remote_job import DESCRIPTION, RESULT, Work, main
from ganpipe.stages.shared_storage import require_reachable, require_shared, with_dvc_urls
from ganpipe.tracking.runs import Tracker
from ganpipe.training.settings import ClusterSettings
from ganpipe.training.start import Start

SECRET = "a-secret-of-the-driver"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a DVC repository with shards, and no remote."""
    root = tmp_path / "checkout"
    for number, image in enumerate(blobs(30)["image"].numpy()):
        save_image(tmp_path / "images" / f"{number}.png", image)
    settings = DataSettings(source="folder", image_size=16, samples_per_shard=10)
    source = Folder(Folder.Settings.model_validate({"path": str(tmp_path / "images")}))
    write_shards(settings, source, root / SHARDS, num_processes=1)
    shutil.copy(SOURCE / "params.yaml", root)
    monkeypatch.chdir(root)
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert dvc(["init", "--quiet"]) == dvc(["add", "--quiet", str(SHARDS)]) == 0
    return root


def shards_of(checkout: Path) -> ShardSet:
    return ShardSet(str(checkout / SHARDS), read_manifest(checkout / SHARDS))


def test_shards_in_the_dvc_remote_have_addresses_by_content(checkout: Path, tmp_path: Path) -> None:
    shards = shards_of(checkout)
    assert with_dvc_urls(shards) == (shards, "there is no default DVC remote")
    assert dvc(["remote", "add", "--quiet", "--default", "store", str(tmp_path / "remote")]) == 0
    names = [shard.name for shard in shards.read_manifest().shards]
    assert with_dvc_urls(shards) == (shards, f"{len(names)} of {len(names)} shards are not in the DVC remote")
    assert dvc(["push", "--quiet"]) == 0
    found, reason = with_dvc_urls(shards)
    assert reason == ""
    assert list(found.urls) == names
    for shard in shards.read_manifest().shards:
        assert hashlib.sha256(Path(found.urls[shard.name]).read_bytes()).hexdigest() == shard.sha256
    # Shards that somebody ingested by hand are not those that DVC knows.
    (checkout / SHARDS / MANIFEST).write_text((checkout / SHARDS / MANIFEST).read_text().replace("folder", "folders"))
    assert with_dvc_urls(shards)[1] == "dvc.lock names other shards than are in the folder (run `dvc repro ingest`)"


def test_a_remote_whose_url_holds_a_password_is_told_to_nobody(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dvc(["remote", "add", "--quiet", "--default", "store", f"https://me:{SECRET}@store.example/path"]) == 0
    monkeypatch.setattr("ganpipe.stages.shared_storage._missing", lambda filesystem, paths: 0)  # the store is none
    shards = shards_of(checkout)
    found, reason = with_dvc_urls(shards)
    assert found == shards
    assert reason == "the DVC remote's URL holds a password, which is sent to nobody"


def test_hosts_are_told_where_the_remote_is_and_never_its_secrets(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert dvc(["remote", "add", "--quiet", "--default", "store", str(tmp_path / "remote")]) == 0
    assert dvc(["push", "--quiet"]) == 0
    # The same remote as an S3 store that does not answer: what is asked there is answered from here.
    for key, value in {
        "url": "s3://bucket/path",
        "endpointurl": "http://127.0.0.1:1",
        "access_key_id": SECRET,
        "secret_access_key": SECRET,
    }.items():
        assert dvc(["remote", "modify", "--quiet", "--local", "store", key, value]) == 0
    with pytest.raises(UnavailableError, match="the DVC remote cannot be asked for the shards: .*127.0.0.1:1"):
        with_dvc_urls(shards_of(checkout))
    monkeypatch.setattr("ganpipe.stages.shared_storage._missing", lambda filesystem, paths: 0)
    found, _ = with_dvc_urls(shards_of(checkout))
    assert found.options == {"client_kwargs": {"endpoint_url": "http://127.0.0.1:1"}}
    assert all(url.startswith("s3://bucket/path/files/md5/") for url in found.urls.values())
    tracker = Tracker("https://me:password@mlflow.example", "ganpipe", "spool")
    start = Start("models:/digits/3", "ab" * 32, "s3://bucket/work/start.safetensors")
    work = Work("train", load_params(), {}, "s3://bucket/work", "0123", "run", found, "", tracker, start)
    described = work.to_json()
    assert SECRET not in described
    assert json.loads(described)["tracker"]["uri"] == "https://mlflow.example"
    again = Work.from_json(described)
    assert (again.shards, again.params, again.folder) == (work.shards, work.params, work.folder)
    assert again.start == start
    assert Work.from_json(dataclasses.replace(work, start=None).to_json()).start is None


def test_an_error_of_the_code_in_a_job_is_told_to_the_driver(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a result the driver would take the job for a lost one, and Prefect would try it again."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)  # Ray sets it for a job: that it is missing is such an error
    folder = tmp_path / "work"
    tracker = Tracker("http://127.0.0.1:1", "ganpipe", "spool")
    work = Work("train", load_params(), {}, folder.as_uri(), "0123", "run", shards_of(checkout), "", tracker)
    Path(DESCRIPTION).write_text(work.to_json())
    assert main() == EXIT_MENDABLE
    result = json.loads((folder / RESULT).read_text())
    assert result["unavailable"] is False
    assert re.fullmatch(
        r"KeyError: 'RAY_ADDRESS' \(ganpipe/stages/remote_job.py:\d+\); an error of the code, which another try .*",
        result["error"],
    )
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("storage_path", "tracking_uri", "message"),
    [
        (None, "http://mlflow:5000", r"cluster.storage_path: not set, a folder of this host, but .* on alpha, beta"),
        ("/data/work", "http://mlflow:5000", r"cluster.storage_path: got '/data/work', a folder of this host"),
        (
            "s3://bucket",
            "sqlite:////data/mlflow.db",
            r"MLFLOW_TRACKING_URI: 'sqlite:////data/mlflow.db' is reached from",
        ),
        ("s3://bucket", "http://127.0.0.1:5000", r"MLFLOW_TRACKING_URI: 'http://127.0.0.1:5000' is reached from this"),
    ],
)
def test_a_place_of_this_host_alone_is_refused(storage_path: str | None, tracking_uri: str, message: str) -> None:
    with pytest.raises(GanpipeError, match=message):
        require_shared(ClusterSettings(storage_path=storage_path), tracking_uri, ["beta", "alpha"])
    for shared in ("file:///data/work", "s3://bucket/path"):
        require_shared(ClusterSettings(storage_path=shared), "http://mlflow:5000", ["beta", "alpha"])


def test_hosts_that_cannot_get_the_shards_are_named() -> None:
    with pytest.raises(GanpipeError, match=r"alpha, beta of the cluster cannot see this folder, and why; .*`dvc push`"):
        require_reachable(ShardSet("shards"), "why", {"beta": "2", "alpha": "1"})
