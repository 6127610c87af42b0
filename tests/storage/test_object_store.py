"""What is shared by URL lies on a real S3 API: shards to ingest, checkpoints, artefacts; the environment says where."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from object_store import BUCKET, SECRET, ObjectStore, free_port
from PIL import Image
from training_parts import SMALL, blobs, largest_difference

from ganpipe.data import sources
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.settings import DataSettings
from ganpipe.data.shards.manifest import read_manifest
from ganpipe.data.shards.shard_set import ShardSet
from ganpipe.data.shards.store import ShardStore
from ganpipe.errors import GanpipeError, UnavailableError
from ganpipe.gans import load
from ganpipe.stages.storage import require_writable
from ganpipe.tracking.runs import Tracker
from ganpipe.training.settings import TrainSettings
from ganpipe.training.worker import TrainingJob, run_training


def tar_of(start: int, stop: int) -> bytes:
    """Blobs `start` to `stop` as others write WebDataset shards: `<key>.png` and `<key>.cls`."""
    fields = blobs(stop)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(start, stop):
            png = io.BytesIO()
            pixels = ((fields["image"][number, 0].numpy() + 1) * 127.5).round().astype(np.uint8)
            Image.fromarray(pixels).save(png, "PNG")
            for extension, content in (("png", png.getvalue()), ("cls", str(int(fields["label"][number])).encode())):
                info = tarfile.TarInfo(f"{number:06d}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def ingest(pattern: str, root: Path, out: Path, store: ShardStore | None = None) -> dict[str, bytes]:
    source = sources.load("webdataset")
    values = {"path": str(root), "shards": [pattern], "label": "cls", "classes": ["left", "right"]}
    settings = DataSettings(source="webdataset", image_size=16, samples_per_shard=50)
    write_shards(settings, source(source.Settings.model_validate(values)), out, num_processes=1, store=store)
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_shards_in_a_bucket_are_ingested_as_those_in_a_folder(s3: ObjectStore, tmp_path: Path) -> None:
    for number in range(3):
        name, content = f"part-{number}.tar", tar_of(40 * number, 40 * (number + 1))
        (tmp_path / name).write_bytes(content)
        s3.client.put_object(Bucket="ganpipe", Key=f"shards/{name}", Body=content)
    here = ingest("part-{0..2}.tar", tmp_path, tmp_path / "here")
    there = ingest(s3.url("shards/part-{0..2}.tar"), tmp_path, tmp_path / "there")
    assert len(here) > 2
    assert there == here
    with pytest.raises(GanpipeError, match=r"^s3://ganpipe/shards/part-7\.tar: cannot be read at all"):
        ingest(s3.url("shards/part-7.tar"), tmp_path, tmp_path / "nowhere")


def test_images_in_a_folder_of_the_bucket_are_those_of_a_local_folder(s3: ObjectStore, tmp_path: Path) -> None:
    folder, fields = sources.load("folder"), blobs(30)
    for number in range(30):
        path = tmp_path / "images" / ("left", "right")[int(fields["label"][number])] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = ((fields["image"][number, 0].numpy() + 1) * 127.5).round().astype(np.uint8)
        Image.fromarray(pixels).save(path)
    (tmp_path / "images" / "left" / "notes.txt").write_text("no image")
    (tmp_path / "images" / ".hidden.png").write_bytes(b"hidden")
    for path in (tmp_path / "images").rglob("*"):
        if path.is_file():
            s3.client.upload_file(str(path), BUCKET, f"pictures/{path.relative_to(tmp_path / 'images')}")
    settings = DataSettings(source="folder", image_size=16, samples_per_shard=10)
    manifests, found = [], []
    for name, values in (("local", {"path": str(tmp_path / "images")}), ("there", {"url": s3.url("pictures/")})):
        source = folder(folder.Settings.model_validate(values))
        source.check()
        manifests.append(write_shards(settings, source, tmp_path / name, num_processes=1))
        found.append(source)
    assert manifests[0].shards == manifests[1].shards
    assert manifests[1].classes == ("left", "right")
    assert [one.kind for one in manifests[1].left_out] == [".txt"]
    before = found[1].fingerprint()
    assert found[1].fingerprint() == before
    s3.client.put_object(Bucket=BUCKET, Key="pictures/left/000.png", Body=b"no image any more")
    assert found[1].fingerprint() != before
    again = folder(folder.Settings.model_validate({"url": s3.url("pictures")}))
    with pytest.raises(GanpipeError, match=r"left/\d+\.png: .*; remove it, or set data\.unreadable to skip"):
        write_shards(settings, again, tmp_path / "damaged", num_processes=1)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (
            "s3://ganpipe/nothing-here",
            r"folder\.url: s3://ganpipe/nothing-here does not exist, or has no file",
        ),
        ("https://h.example/images", r"sources\.folder\.url: https://h\.example/images: a web server does not list"),
        ("gopher://x/y", r"gopher://x/y: no driver for gopher:// is installed"),
    ],
)
def test_folders_that_cannot_be_listed(s3: ObjectStore, url: str, text: str) -> None:
    folder = sources.load("folder")
    with pytest.raises(GanpipeError, match=text):
        folder(folder.Settings.model_validate({"url": url})).check()


def test_a_shard_replaced_in_the_bucket_is_noticed(s3: ObjectStore) -> None:
    source = sources.load("webdataset")
    settings = source.Settings.model_validate({"path": ".", "shards": [s3.url("replaced/x.tar")]})
    s3.client.put_object(Bucket="ganpipe", Key="replaced/x.tar", Body=tar_of(0, 2))
    before = source(settings).fingerprint()
    assert source(settings).fingerprint() == before
    s3.client.put_object(Bucket="ganpipe", Key="replaced/x.tar", Body=tar_of(2, 4))
    assert source(settings).fingerprint() != before


def make_job(shards: Path, folder: str) -> TrainingJob:
    values = {
        "gan": "dcgan",
        "num_images": 320,
        "batch_size": 16,
        "precision": "fp64",
        "checkpoint_every": 80,
        "log_every": 40,
    }
    config = load("dcgan").Config.model_validate(SMALL["dcgan"])
    settings = TrainSettings.model_validate(values)
    scores = iter([4.0, 1.0, 3.0, 2.0])
    score = lambda gan, progress: next(scores)  # noqa: E731
    return TrainingJob("t", "dcgan", config, settings, str(shards), folder, score=score, score_name="distance")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    (tmp_path / "blobs.tar").write_bytes(tar_of(0, 200))
    ingest("blobs.tar", tmp_path, tmp_path / "shards")
    return tmp_path / "shards"


def test_checkpoints_in_a_bucket_are_those_in_a_folder_and_training_goes_on_from_them(
    s3: ObjectStore, shards: Path, tmp_path: Path
) -> None:
    local, remote = make_job(shards, str(tmp_path / "work")), make_job(shards, s3.url("work/train"))
    run_training(local)
    # The first half, and the rest by another process's store, which has listed nothing yet.
    first = remote.settings.model_copy(update={"num_images": 160})
    run_training(dataclasses.replace(remote, settings=first))
    assert remote.store.list() == [80, 160]
    run_training(dataclasses.replace(remote, score=lambda gan, now: {240: 3.0, 320: 2.0}[now.images_seen]))
    assert local.store.list() == remote.store.list() == [160, 240, 320]  # the last two, and the best
    here, there = local.store.load(320), remote.store.load(320)
    assert largest_difference(here["gan"], there["gan"]) == 0
    assert here["curves"]["rows"] == there["curves"]["rows"]
    assert here["scores"] == there["scores"] == {80: 4.0, 160: 1.0, 240: 3.0, 320: 2.0}
    assert [key for key in s3.keys("work/") if "partial" in key] == []


def test_a_training_streams_shards_from_the_bucket_that_ingest_put_there(
    s3: ObjectStore, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest("blobs.tar", tmp_path, tmp_path / "there", ShardStore(s3.url("streamed")))
    manifest = read_manifest(tmp_path / "there")
    assert manifest == read_manifest(shards)
    assert len(s3.keys("streamed/")) == len(manifest.shards) + 1  # and the one that tried whether it can be written
    most = max(shard.num_bytes for shard in manifest.shards)
    monkeypatch.setenv("GANPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GANPIPE_CACHE_BYTES", str(2 * most))
    made = []
    for found in (
        ShardSet(str(shards), read="cache"),
        ShardSet(str(tmp_path / "there"), manifest, read="stream", store=s3.url("streamed")),
    ):
        job = make_job(shards, str(tmp_path / f"work-{found.read}"))
        settings = job.settings.model_copy(update={"window_shards": 1})
        run_training(dataclasses.replace(job, shards=found, settings=settings))
        made.append(job.store.load(job.store.newest())["gan"])
        monkeypatch.setenv("GANPIPE_CACHE", str(tmp_path / "another"))
    assert largest_difference(*made) == 0
    assert sum(path.stat().st_size for path in (tmp_path / "another").rglob("*.tar")) <= 2 * most


def test_a_place_for_checkpoints_that_cannot_be_written_is_named(s3: ObjectStore, tmp_path: Path) -> None:
    require_writable(s3.url("probed/work"))
    require_writable(str(tmp_path / "work"))
    assert s3.keys("probed/") == []
    expected = r"^cluster\.storage_path: s3://no-such-bucket/work cannot be written: .*bucket.* may write to"
    with pytest.raises(GanpipeError, match=expected):
        require_writable("s3://no-such-bucket/work")
    with pytest.raises(
        GanpipeError, match=r"^cluster\.storage_path: s4://bucket/x cannot be written: Protocol not known"
    ):
        require_writable("s4://bucket/x")
    (tmp_path / "file").touch()
    with pytest.raises(GanpipeError, match=r"cannot be written: .*Not a directory"):
        require_writable(str(tmp_path / "file" / "work"))


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_worth_another_try(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port('127.0.0.1')}")
    with pytest.raises(UnavailableError, match=r"s3://ganpipe/work does not answer: .*check AWS_ENDPOINT_URL"):
        require_writable(s3.url("work"))


@pytest.mark.slow
@pytest.mark.parametrize("through_the_server", [False, True], ids=["clients write", "the server writes"])
def test_mlflows_files_lie_in_the_bucket(s3: ObjectStore, tmp_path: Path, through_the_server: bool) -> None:
    """`--default-artifact-root`: every client writes there itself; `--artifacts-destination`: only the server does, and
    needs the key."""
    port = free_port("127.0.0.1")
    place = s3.url("proxied" if through_the_server else "direct")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--artifacts-destination", place] if through_the_server else ["--default-artifact-root", place]
    command += [] if through_the_server else ["--no-serve-artifacts"]
    variables = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = tmp_path / "server.log"
    with log.open("wb") as file, subprocess.Popen(command, env=variables, stdout=file, stderr=file) as server:
        try:
            tracker = Tracker(f"http://127.0.0.1:{port}", "e", str(tmp_path / "spool"))
            wait_for(tracker, server, log)
            with pytest.MonkeyPatch.context() as patch:
                if through_the_server:
                    for name in s3.environment:
                        patch.delenv(name)
                with tracker.run("train", "k") as run:
                    run.log_text("a sample", "samples/000100.txt")
                client = tracker.client()
                assert [item.path for item in client.list_artifacts(run.run_id, "samples")] == ["samples/000100.txt"]
                assert Path(client.download_artifacts(run.run_id, "samples/000100.txt")).read_text() == "a sample"
        finally:
            server.terminate()
    folder = place.removeprefix("s3://ganpipe/")
    (key,) = s3.keys(f"{folder}/")
    assert key.endswith(f"{run.run_id}/artifacts/samples/000100.txt")
    assert SECRET not in log.read_text()


def wait_for(tracker: Tracker, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(60):
        assert server.poll() is None, log.read_text()
        try:
            return tracker.check(2.0)
        except GanpipeError:
            if server.poll() is None:
                time.sleep(0.5)
    raise AssertionError(log.read_text())
