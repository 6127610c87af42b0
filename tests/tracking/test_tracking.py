"""Finding runs, logging them in the background, and what happens while MLflow is away."""

from __future__ import annotations

import http.server
import json
import math
import os
import pickle
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from registry_parts import tracker_in

from ganpipe.errors import GanpipeError
from ganpipe.tracking import lineage
from ganpipe.tracking.connection import check_reachable, tracking_uri, with_retries
from ganpipe.tracking.replay import replay
from ganpipe.tracking.run_log import RunLog, clean_key, flatten
from ganpipe.tracking.runs import Tracker
from ganpipe.tracking.spool import Spool, spool_files


@pytest.fixture(autouse=True)
def _own_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    tracker_in(root).client()
    return root / "mlflow.db"


@pytest.fixture
def tracker(tmp_path: Path, template: Path) -> Tracker:
    return tracker_in(tmp_path / "repo", template)


def history(tracker: Tracker, run_id: str, key: str) -> list[tuple[int, float]]:
    """Steps and values as MLflow has them, in the order of their timestamps."""
    metrics = tracker.client().get_metric_history(run_id, key)
    return [(metric.step, metric.value) for metric in sorted(metrics, key=lambda item: (item.timestamp, item.step))]


# --- where it is, and whether it answers


def test_the_default_is_a_database_in_the_repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path.parent)
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other/x.db")
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/other/x.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert tracking_uri(tmp_path) == "http://somewhere:5000"
    assert Tracker.at(tmp_path, "e").artifact_dir is None


class _Answer(http.server.BaseHTTPRequestHandler):
    status = 404

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


def _serve(status: int) -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("A", (_Answer,), {"status": status}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "answers with status 404, so it is not MLflow"), (401, "refuses access .* MLFLOW_TRACKING_USERNAME")],
)
def test_another_server_is_told_apart(status: int, message: str) -> None:
    server = _serve(status)
    with pytest.raises(GanpipeError, match=message):
        check_reachable(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_server_that_is_down_or_silent_is_named_within_seconds(silent_port: int, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed_port = listener.getsockname()[1]
    for port in (closed_port, silent_port):
        start = time.monotonic()
        with pytest.raises(
            GanpipeError, match=rf"MLflow at http://\*\*\*@127\.0\.0\.1:{port} does not answer"
        ) as caught:
            check_reachable(f"http://me:secret@127.0.0.1:{port}", timeout_seconds=1.0)
        assert time.monotonic() - start < 4
        assert re.search(
            r"\((\[Errno 111\] Connection refused|.*timeout=1\.0|Read timed out).*\); start it", str(caught.value)
        )
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_stage_does_not_start_without_mlflow(tmp_path: Path) -> None:
    tracker = Tracker("http://127.0.0.1:9", "e", str(tmp_path))
    with pytest.raises(GanpipeError, match="does not answer"):
        tracker.run("train", "k")


def test_folders_and_broken_databases_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database at all, but long enough to have a header" * 10)
    with pytest.raises(GanpipeError, match=r"mlflow\.db: not a usable SQLite database"):
        check_reachable(f"sqlite:///{tmp_path}/mlflow.db")
    for uri in ("./mlruns", "file:///tmp/x"):
        with pytest.raises(GanpipeError, match=r"is a folder, which MLflow 3\.17 no longer takes"):
            check_reachable(uri)


# --- runs


def _fail(first: Iterable[Any] = ()) -> None:
    """Do what comes first, then break down."""
    list(first)
    raise ZeroDivisionError


def test_a_run_is_found_again_by_stage_and_key(tracker: Tracker) -> None:
    with tracker.run("train", "k1", tags={"ganpipe.git.dirty": "false"}) as first:
        first.log_params({"train": {"gan": "dcgan", "milestones": [100, 1000]}, "seed": 3})
        first.log_metrics({"loss/adversarial": 0.5}, step=64)
    assert not first.existed_before
    with tracker.run("train", "k1") as again:
        assert again.run_id == first.run_id
        assert again.finished_before
    with pytest.raises(ZeroDivisionError), tracker.run("train", "k2") as other:
        _fail()
    assert other.run_id != first.run_id
    with tracker.run("train", "k2") as resumed:
        assert resumed.run_id == other.run_id
        assert not resumed.finished_before
        assert tracker.client().get_run(other.run_id).info.status == "RUNNING"
    run = tracker.client().get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.gan": "dcgan", "train.milestones": "[100, 1000]", "seed": "3"}
    assert run.data.tags["ganpipe.git.dirty"] == "false"
    assert (tracker.client().get_run(run.info.run_id).info.artifact_uri).startswith(f"file://{tracker.artifact_dir}")


def test_an_interrupted_run_is_killed_not_finished(tracker: Tracker) -> None:
    with pytest.raises(KeyboardInterrupt), tracker.run("train", "k") as run:
        raise KeyboardInterrupt
    assert tracker.client().get_run(run.run_id).info.status == "KILLED"


def test_trials_are_child_runs(tracker: Tracker) -> None:
    with tracker.run("tune", "k") as parent:
        runs = [tracker.run(f"trial-{index}", "k", parent_run_id=parent.run_id) for index in range(3)]
        for run in runs:
            assert run.close()
    assert len({run.run_id for run in runs}) == 3
    client = tracker.client()
    experiment = client.get_run(parent.run_id).info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.run_id}'")
    assert {run.info.run_id for run in children} == {run.run_id for run in runs}


def test_a_deleted_experiment_is_named(tracker: Tracker) -> None:
    client = tracker.client()
    client.delete_experiment(tracker.experiment_id(client))
    with pytest.raises(GanpipeError, match=r"register\.experiment: .* was deleted; restore it"):
        tracker.run("train", "k")


OPEN_RUN = """
import pickle, sys
tracker = pickle.loads(bytes.fromhex(sys.argv[1]))
with tracker.run("train", "same-key") as run:
    run.log_metrics({f"worker_{sys.argv[2]}": 1.0}, step=1)
print(run.run_id)
"""


def test_processes_that_start_at_once_share_database_and_run(tmp_path: Path) -> None:
    tracker = tracker_in(tmp_path / "fresh")
    command = [sys.executable, "-c", OPEN_RUN, pickle.dumps(tracker).hex()]
    processes = [subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True) for number in range(2)]
    run_ids = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert len(run_ids) == 1
    assert tracker.client().get_run(run_ids.pop()).data.metrics == {"worker_0": 1.0, "worker_1": 1.0}


def test_a_host_without_the_database_says_so(tmp_path: Path) -> None:
    with pytest.raises(GanpipeError, match="not on this host, so nothing can be logged"):
        tracker_in(tmp_path / "nothing").attach("0" * 32)


# --- what is logged


def test_names_and_values_are_made_to_fit(tracker: Tracker) -> None:
    long = {"a" * 400: "v" * 9000, "ünï[0]": None, "nested": {"x": {}, "y": {"z": True}}}
    with tracker.run("train", "k") as run:
        run.log_params(long)
        run.set_tags({"long": "t" * 9000})
        run.log_params({f"p{index}": index for index in range(250)})
        run.log_metrics({f"m{index}": index for index in range(2500)}, step=1)
    data = tracker.client().get_run(run.run_id).data
    assert len(data.params) == 4 + 250
    assert max(map(len, data.params)) == 250
    assert max(map(len, data.params.values())) == 6000
    assert data.params["nested.y.z"] == "True"
    assert len(data.tags["long"]) == 8000
    assert len(data.metrics) == 2500
    assert clean_key("loss[generator]") == "loss_generator_"
    assert flatten({"a": {"b": [1]}}) == {"a.b": [1]}


def test_a_changed_param_becomes_a_tag(tracker: Tracker) -> None:
    for workers in (1, 2):
        with tracker.run("train", "k") as run:
            run.log_params({"cluster": {"num_workers": workers}, "seed": 3})
    data = tracker.client().get_run(run.run_id).data
    assert data.params == {"cluster.num_workers": "1", "seed": "3"}
    assert data.tags["changed.cluster.num_workers"] == "2"


def test_not_a_number_and_infinity_are_logged(tracker: Tracker) -> None:
    with tracker.run("train", "k") as run:
        run.log_metrics({"a": math.nan, "b": math.inf}, step=1)
    metrics = tracker.client().get_run(run.run_id).data.metrics
    assert math.isnan(metrics["a"])
    assert metrics["b"] > 1e300


def test_files_are_copied_at_once_and_replaced(tracker: Tracker, tmp_path: Path) -> None:
    with tracker.run("train", "k") as run:
        for text in ("first", "second"):
            path = tmp_path / "000100.png"
            path.write_text(text)
            run.log_artifact(path, "samples")
            path.unlink()
        run.log_text("{}", "environment.json")
    client = tracker.client()
    assert Path(client.download_artifacts(run.run_id, "samples/000100.png")).read_text() == "second"
    assert [item.path for item in client.list_artifacts(run.run_id)] == ["environment.json", "samples"]


def test_going_on_from_a_checkpoint_logs_no_step_twice(tracker: Tracker) -> None:
    with pytest.raises(ZeroDivisionError), tracker.run("train", "k") as run:
        _fail(run.log_metrics({"loss": step}, step) for step in range(10))
    with tracker.run("train", "k") as run:
        for step in range(6, 15):  # the checkpoint was at step 5
            run.log_metrics({"loss": step}, step)
    assert history(tracker, run.run_id, "loss") == [(step, step) for step in range(15)]


def test_logging_does_not_wait_for_mlflow(tracker: Tracker) -> None:
    with tracker.run("train", "k") as run:
        start = time.monotonic()
        for step in range(1000):
            run.log_metrics({"a": step, "b": step}, step)
        assert time.monotonic() - start < 1.0
        assert run.flush(30)
    assert len(history(tracker, run.run_id, "a")) == 1000


# --- MLflow is away


class Flaky:
    """A real client whose answers get lost, before or after the server has acted."""

    def __init__(self, client: MlflowClient, losses: list[str]) -> None:
        self._client = client
        self._losses = losses

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            loss = self._losses.pop(0) if self._losses and name == "log_batch" else ""
            if loss == "before":
                raise MlflowException("connection refused")
            result = real(*arguments, **options)
            if loss == "after":
                raise MlflowException("connection reset by peer")
            return result

        return call


def test_an_answer_that_got_lost_logs_nothing_twice(tracker: Tracker) -> None:
    with tracker.run("train", "k", name="outer") as outer:
        losses = ["before", "after"]
        run = RunLog(lambda: Flaky(tracker.client(), losses), outer.run_id, Path(tracker.spool_dir), ends_run=False)  # type: ignore[arg-type,return-value]
        for step in range(50):
            run.log_metrics({"loss": step}, step)
            time.sleep(0.01)
        assert run.close()
        assert losses == []
    assert history(tracker, outer.run_id, "loss") == [(step, step) for step in range(50)]


def test_a_locked_database_is_waited_for(tracker: Tracker, tmp_path: Path) -> None:
    with tracker.run("train", "k") as run:
        other = sqlite3.connect(tmp_path / "repo" / "mlflow.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        run.log_metrics({"loss": 1.0}, step=1)
        assert not run.flush(7.0)  # MLflow itself waits 5 s for the lock
        other.execute("ROLLBACK")
        other.close()
        assert run.flush(30.0)
    assert history(tracker, run.run_id, "loss") == [(1, 1.0)]


def _away() -> MlflowClient:
    raise ConnectionError("nobody there")


def test_what_is_left_when_mlflow_stays_away_is_sent_later(
    tracker: Tracker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracker.run("train", "k") as outer:
        pass
    run = RunLog(_away, outer.run_id, Path(tracker.spool_dir))
    run.log_metrics({"loss": 1.0}, step=1)
    run.log_text("grid", "samples/1.txt")
    run.log_metrics({"loss": 2.0}, step=2)
    start = time.monotonic()
    assert not run.close(timeout_seconds=1.0)
    assert time.monotonic() - start < 3
    assert "ganpipe replay" in caplog.text
    assert history(tracker, outer.run_id, "loss") == []
    assert replay(tmp_path / "repo") == (1, 1)
    assert history(tracker, outer.run_id, "loss") == [(1, 1.0), (2, 2.0)]
    client = tracker.client()
    assert Path(client.download_artifacts(outer.run_id, "samples/1.txt")).read_text() == "grid"
    assert client.get_run(outer.run_id).info.status == "FINISHED"
    assert replay(tmp_path / "repo") == (0, 0)
    assert not list(Path(tracker.spool_dir).iterdir())


DIE = """
import os, signal, sys
from pathlib import Path
from ganpipe.tracking.spool import Spool
spool = Spool(Path(sys.argv[1]), sys.argv[2])
for step in range(3):
    spool.append({"kind": "metrics", "step": step, "time": 1000 + step, "values": {"loss": step}})
spool._file.write('{"kind": "metr')
spool._file.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_sent_first(tracker: Tracker) -> None:
    with tracker.run("train", "k") as run:
        pass
    command = [sys.executable, "-c", DIE, tracker.spool_dir, run.run_id]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    with tracker.run("train", "k") as run:
        run.log_metrics({"loss": 3.0}, step=3)
    assert history(tracker, run.run_id, "loss") == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]
    assert not spool_files(Path(tracker.spool_dir))


def test_a_run_that_mlflow_could_not_make_is_made_later(tracker: Tracker, tmp_path: Path) -> None:
    with tracker.run("tune", "k") as parent:
        pass
    away = Tracker("http://127.0.0.1:9", "tests", tracker.spool_dir)  # nobody listens there
    trial = away.deferred_run("trial-0", "k", name="trial 0", parent_run_id=parent.run_id)
    trial.log_params({"lr": 0.1})
    for step in range(3):
        trial.log_metrics({"loss": step}, step)
    assert not trial.flush()  # at once: a checkpoint does not wait for who is away
    assert not trial.close(timeout_seconds=1.0)
    # Another try of the trial, which is killed: what it recorded first is adopted with what it recorded itself.
    code = (
        "import os, signal, pickle, sys\n"
        "tracker = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "trial = tracker.deferred_run('trial-0', 'k', name='trial 0', parent_run_id=sys.argv[2])\n"
        "trial.log_metrics({'loss': 3}, 3)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code, pickle.dumps(away).hex(), parent.run_id]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert replay(tmp_path / "repo") == (1, 1)
    client = tracker.client()
    (made,) = client.search_runs([tracker.experiment_id(client)], "tags.`ganpipe.stage` = 'trial-0'")
    assert made.data.tags["mlflow.parentRunId"] == parent.run_id
    assert (made.info.run_name, made.data.params, made.info.status) == ("trial 0", {"lr": "0.1"}, "FINISHED")
    assert history(tracker, made.info.run_id, "loss") == [(step, step) for step in range(4)]
    assert replay(tmp_path / "repo") == (0, 0)
    # It is the run that the trial finds when MLflow answers.
    with tracker.deferred_run("trial-0", "k", name="trial 0", parent_run_id=parent.run_id) as again:
        again.log_metrics({"loss": 4}, 4)
    assert again.run_id == made.info.run_id
    assert history(tracker, made.info.run_id, "loss") == [(step, step) for step in range(5)]


def test_what_a_second_writer_left_is_sent_by_the_first(tracker: Tracker) -> None:
    with tracker.run("train", "k") as run:
        second = RunLog(_away, run.run_id, Path(tracker.spool_dir), ends_run=False)
        second.log_metrics({"loss": 1.0}, step=1)
        assert not second.close(timeout_seconds=0.5)
    assert history(tracker, run.run_id, "loss") == [(1, 1.0)]
    assert not spool_files(Path(tracker.spool_dir))


def test_a_living_processs_records_are_left_to_it(tmp_path: Path) -> None:
    first = Spool(tmp_path, "run")
    first.append({"kind": "tags", "values": {}})
    second = Spool(tmp_path, "run")
    assert len(second) == 0
    second.close()
    first.close()
    assert len(Spool(tmp_path, "run")) == 1
    assert oct(first.path.parent.joinpath(spool_files(tmp_path)[0]).stat().st_mode)[-3:] == "600"


def test_a_record_that_mlflow_refuses_stops_no_other(tracker: Tracker, caplog: pytest.LogCaptureFixture) -> None:
    with tracker.run("train", "k") as run:
        run.log_metrics({"loss": 1.0}, step=1)
        run._record({"kind": "metrics", "step": 2, "time": 1, "values": {"no:such[name]": 1.0}})
        run.log_metrics({"loss": 3.0}, step=3)
    assert history(tracker, run.run_id, "loss") == [(1, 1.0), (3, 3.0)]
    rejected = json.loads((Path(tracker.spool_dir) / f"{run.run_id}.rejected").read_text())
    assert rejected["values"] == {"no:such[name]": 1.0}
    assert "MLflow refuses a record" in caplog.text


def test_patience_ends(tracker: Tracker) -> None:
    calls: list[int] = []

    def fails() -> None:
        calls.append(1)
        raise MlflowException("down")

    with pytest.raises(GanpipeError, match="did not answer for 1 s: down"):
        with_retries(fails, tracker.uri, seconds=1)
    assert len(calls) > 1

    def wrong() -> None:
        calls.append(1)
        raise MlflowException.invalid_parameter_value("no such thing")

    calls.clear()
    with pytest.raises(GanpipeError, match="refuses: no such thing"):
        with_retries(wrong, tracker.uri, seconds=1)
    assert len(calls) == 1


# --- lineage


def test_git_state_is_told(tmp_path: Path) -> None:
    assert lineage.git_tags(tmp_path) == {"ganpipe.git.commit": "none"}
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "one")
    tags = lineage.git_tags(tmp_path)
    assert tags["mlflow.source.git.commit"] == tags["ganpipe.git.commit"] == git("rev-parse", "HEAD")
    assert tags["ganpipe.git.dirty"] == "false"
    (tmp_path / "a").write_text("2")
    assert lineage.git_tags(tmp_path)["ganpipe.git.dirty"] == "true"


def test_dvc_digests_are_told(tmp_path: Path) -> None:
    assert lineage.dvc_tags(tmp_path, [Path("artifacts")]) == {}
    (tmp_path / "dvc.lock").write_text("""
schema: '2.0'
stages:
  ingest:
    cmd: ganpipe ingest
    deps: [{path: ganpipe/data, hash: md5, md5: aa.dir}]
    outs: [{path: artifacts/shards, hash: md5, md5: bb.dir}]
  train:
    cmd: ganpipe train
    deps: [{path: ganpipe/training, hash: md5, md5: cc.dir}]
    outs: [{path: artifacts/train, hash: md5, md5: dd.dir}]
""")
    assert lineage.dvc_tags(tmp_path, [Path("artifacts/shards")]) == {"dvc.artifacts/shards": "bb.dir"}
    assert lineage.dvc_tags(tmp_path, [Path("artifacts")]) == {
        "dvc.artifacts/shards": "bb.dir",
        "dvc.artifacts/train": "dd.dir",
    }
    (tmp_path / "dvc.lock").write_text("<<<<<<< HEAD")
    with pytest.raises(GanpipeError, match=r"dvc\.lock: not what DVC writes"):
        lineage.dvc_tags(tmp_path, [Path("artifacts")])


def test_the_environment_is_told() -> None:
    found = lineage.environment()
    assert found["packages"]["torch"].startswith("2.")
    assert json.loads(lineage.environment_text(found)) == found
    assert lineage.environment_tags(found)["env.num_cpus"] == str(os.cpu_count())
    assert found["cpu"] != "unknown"
    assert re.fullmatch("[0-9a-f]{40}", found["torch"]["git"])
    assert lineage.compute_tags(found) == {
        "env.threads": str(torch.get_num_threads()),
        "env.deterministic": "False",
    }
    torch.use_deterministic_algorithms(True)
    assert lineage.compute_tags(lineage.environment())["env.deterministic"] == "True"
    assert any(line.startswith("mlflow==") for line in lineage.requirements_text().splitlines())
