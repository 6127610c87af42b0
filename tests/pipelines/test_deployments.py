"""prefect.yaml for real: a server, a worker, the README's and the runbook's lines, events, automations."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from projects import STAGES, Project

from ganpipe import events, processes, services

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deployed(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project with a Prefect server, its deployments and a worker, started as docs/operations.md says."""
    for name in ("PREFECT_API_URL", "PREFECT_HOME"):
        assert name not in project.environment
    project = project.copy(tmp_path_factory.mktemp("deployed") / "project")  # others count the versions of theirs
    server = services.ensure("prefect", project.root)
    variables = {**project.environment, **services.client_environment({"prefect": server}, project.root)}
    deployed = Project(project.root, variables)
    deployed.run("prefect", "work-pool", "create", "ganpipe", "--type", "process")
    deployed.run("prefect", "--no-prompt", "deploy", "--all")
    elsewhere = tmp_path_factory.mktemp("worker")
    log = elsewhere / "worker.log"
    with log.open("wb") as file:
        # From elsewhere: the deployment says where the checkout is.
        worker = subprocess.Popen(
            ["prefect", "worker", "start", "--pool", "ganpipe"], cwd=elsewhere, env=variables, stdout=file, stderr=file
        )
    try:
        yield deployed
    finally:
        processes.end_tree(worker.pid)
        worker.wait(timeout=30)
        print(log.read_text(encoding="utf-8"))


def _api(deployed: Project, path: str, body: Any) -> Any:
    request = urllib.request.Request(
        f"{deployed.environment['PREFECT_API_URL']}/{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        text = response.read()
    return json.loads(text) if text else None


def _runs(deployed: Project, deployment: str) -> list[dict[str, Any]]:
    flow, name = deployment.split("/")
    body = {"deployments": {"name": {"any_": [name]}}, "flows": {"name": {"any_": [flow]}}}
    return list(_api(deployed, "flow_runs/filter", body))


def _wait(condition: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
    return found


def _run(deployed: Project, deployment: str, *parameters: str, code: int = 0) -> str:
    arguments = [argument for parameter in parameters for argument in ("--param", parameter)]
    # On one stream: Prefect prints some errors on stdout.
    merged = ["bash", "-c", 'exec "$@" 2>&1' if code == 0 else 'exec "$@" >&2', "bash"]
    return deployed.run(*merged, "prefect", "deployment", "run", deployment, *arguments, "--watch", code=code)


def _task_runs(deployed: Project, name: str) -> list[dict[str, Any]]:
    return _api(deployed, "task_runs/filter", {"task_runs": {"name": {"any_": [name]}}})


def _artifacts(deployed: Project, run_id: str) -> dict[str, Any]:
    found = _api(deployed, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
    return {artifact["key"]: artifact for artifact in found}


@pytest.fixture(scope="module")
def first_run(deployed: Project) -> dict[str, Any]:
    """A run with other settings than the project's; its generator is version 2, and the champion."""
    before = deployed.run("git", "status", "--porcelain")
    said = _run(deployed, "pipeline/default", 'overrides={"train.num_images": 480, "tune.num_trials": 0}')
    assert "Flow run finished successfully in 'Completed'" in said
    assert deployed.run("git", "status", "--porcelain") == before
    (run,) = _runs(deployed, "pipeline/default")
    return dict(run)


def test_a_run_by_parameters_is_an_experiment_with_its_artifacts(deployed, first_run):
    run = first_run
    experiments = deployed.dvc("exp", "list", "--name-only").split()
    assert run["name"] in experiments
    tasks = _api(deployed, "task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert {task["name"]: task["state_name"] for task in tasks} == {
        name: "Cached" if name in ("code", "ingest", "reference") else "Completed" for name in STAGES
    }
    artifacts = _artifacts(deployed, run["id"])
    table = json.loads(artifacts["evaluate-metrics"]["data"])
    (fid,) = [row for row in table if row["metric"] == "fid_efficientnet_lite0"]
    assert fid["value"] > 0
    assert "64 samples against 64 images of the train split" in fid["protocol"]
    assert "data:image/png;base64," in artifacts["evaluate-pictures"]["data"]
    assert "samples/" in artifacts["train-pictures"]["data"]
    assert "**artifacts/ingest/real.png**\n\n![real.png](data:image/png;base64," in artifacts["ingest-pictures"]["data"]
    assert "models:/ganpipe-mnist/2" in artifacts["register-mlflow-model-version"]["data"]
    assert artifacts["train-mlflow-run-of-the-training"]["data"]
    assert artifacts["pipeline-metrics"]["type"] == "table"
    # The experiment is whole: applied, nothing is left to do, and it can be pushed.
    deployed.dvc("exp", "apply", run["name"])
    try:
        assert deployed.stale() == []
        remote = deployed.root.parent / "remote"
        deployed.dvc("remote", "add", "--local", "--force", "--default", "store", str(remote))
        deployed.dvc("push", "--quiet")
        assert len([path for path in remote.rglob("*") if path.is_file()]) >= len(deployed.files()) // 2
    finally:
        deployed.run("git", "checkout", "--force", "main", "--", ".")
        deployed.dvc("checkout", "--force")
        deployed.dvc("remote", "remove", "--local", "store")


def test_bad_parameters_fail_in_seconds(deployed):
    # Prefect's own check, before a run is made; then this project's, before any stage.
    assert "not of type" in _run(deployed, "pipeline/default", "force=perhaps", code=1)
    began = time.monotonic()
    _run(deployed, "pipeline/default", 'overrides={"train.gna": "gan"}', code=1)
    assert time.monotonic() - began < 120
    failed = [run for run in _runs(deployed, "pipeline/default") if run["state_name"] == "Failed"]
    assert "train.gna: unknown key; did you mean 'gan'?" in failed[-1]["state"]["message"]
    assert _api(deployed, "task_runs/filter", {"flow_runs": {"id": {"any_": [failed[-1]["id"]]}}}) == []


def test_nightly_waits_for_its_schedule_to_be_resumed(deployed):
    found = _api(deployed, "deployments/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
    (schedule,) = found[0]["schedules"]
    assert (schedule["active"], schedule["schedule"]["cron"]) == (False, "0 3 * * *")


def test_new_data_starts_a_run(deployed):
    payload = {"source": "folder", "added": 3}
    event = {
        "event": events.DATA_CHANGED,
        "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "resource": {"prefect.resource.id": "ganpipe.source.folder"},
        "payload": payload,
        "id": "6f0c9b1e-55cd-4f2f-8f0e-111111111111",
    }
    _api(deployed, "events", [event])
    (run,) = _wait(lambda: [r for r in _runs(deployed, "pipeline/on-new-data") if r["state_name"] == "Completed"])
    assert run["name"] in deployed.dvc("exp", "list", "--name-only").split()


def test_a_sweep_ends_in_one_table(deployed):
    _run(
        deployed,
        "sweep/default",
        'gans=["gan", "dcgan"]',
        'overrides={"train.num_images": 320, "tune.num_trials": 0}',
        'datasets=[{"name": "few", "overrides": {"data.limit": 150}}]',
        "seeds=[0, 1]",
    )
    (run,) = _runs(deployed, "sweep/default")
    artifacts = _artifacts(deployed, run["id"])
    table = json.loads(artifacts["sweep"]["data"])
    assert [(row["gan"], row["dataset"], row["seed"]) for row in table] == [
        (gan, "few", seed) for gan in ("gan", "dcgan") for seed in (0, 1)
    ]
    of_gan, of_dcgan = json.loads(artifacts["sweep-over-seeds"]["data"])
    assert (of_gan["gan"], of_gan["seeds"], of_dcgan["gan"]) == ("gan", 2, "dcgan")
    assert "±" in of_gan["fid_efficientnet_lite0"]
    assert all(row["fid_efficientnet_lite0"] > 0 and row["error"] == "" for row in table)
    assert {row["experiment"] for row in table} <= set(deployed.dvc("exp", "list", "--name-only").split())
    failure = _failed_sweep(deployed, 'gans=["gan", "gna"]')
    assert "train.gan: there is no GAN named 'gna'; did you mean 'gan'?" in failure


def _failed_sweep(deployed: Project, *parameters: str) -> str:
    _run(deployed, "sweep/default", *parameters, code=1)
    (failed,) = [run for run in _runs(deployed, "sweep/default") if run["state_name"] == "Failed"]
    return str(failed["state"]["message"])


def test_a_webhook_hears_of_champions_and_failures(deployed, first_run):
    heard: list[dict[str, str]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/hook"
        for _ in range(2):  # again: replaced, not doubled
            said = deployed.run("python", "-m", "pipelines.automations", "--webhook", url)
        assert said.splitlines() == [
            "ganpipe: a lost run is marked as crashed",
            "ganpipe: a run that never began is marked as crashed",
            "ganpipe: the champion changed",
            "ganpipe: a run failed or crashed",
            "ganpipe: an alarm of a training",
        ]
        time.sleep(10)  # the server's triggers look for new automations now and then
        _run(deployed, "pipeline/default", 'overrides={"data.image_size": "large"}', code=1)
        unchanging = {"train.gan": "gan", "gans.gan.adam_generator.lr": 1e-12, "gans.gan.adam_discriminator.lr": 1e-12}
        short = {
            "train.num_images": 320,
            "train.checkpoint_every": 64,
            "train.patience_images": 64,
            "tune.num_trials": 0,
        }
        _run(deployed, "pipeline/default", f"overrides={json.dumps(unchanging | short)}")
        promotion = 'a "test" of the webhook'
        deployed.run("ganpipe", "promote", "--version", "2", "--force", "--reason", "so that it moves")
        deployed.run("ganpipe", "promote", "--version", "1", "--force", "--reason", promotion)
        _wait(
            lambda: (
                all(key in str(heard) for key in ("'flow'", "'alarm'"))
                and any(promotion in told.get("why", "") for told in heard)
            ),
            seconds=90,
        )
    finally:
        server.shutdown()
    champion = [told for told in heard if "model" in told][-1]
    assert champion == {
        "event": "ganpipe.alias.moved",
        "model": "ganpipe-mnist",
        "version": 1,
        "by": champion["by"],
        "why": champion["why"],
    }
    assert promotion in champion["why"]
    # Prefect's server takes an event up again where its database was locked, and then calls again: once at the least.
    failures = [told for told in heard if "flow" in told]
    assert {told["run"] for told in failures} == {failures[0]["run"]}
    assert {(told["event"], told["flow"]) for told in failures} == {("prefect.flow-run.Failed", "pipeline")}
    (alarm,) = {told["alarm"] for told in heard if "alarm" in told}
    assert "no_improvement: quick FID has not improved on" in alarm
    (ended,) = [run for run in _task_runs(deployed, "train") if "alarms:" in (run["state"]["message"] or "")]
    assert ended["state_name"] == "Completed"
    names = [f"ganpipe: {what}" for what in ("the champion changed", "a run failed or crashed")]
    found = [automation["name"] for automation in _api(deployed, "automations/filter", {})]
    assert [found.count(name) for name in names] == [1, 1], found  # replaced, not doubled


def test_the_flow_without_a_server(project: Project):
    # Prefect starts a server of its own for the time of the run.
    code = "from pipelines.flow import pipeline; print(pipeline(targets=['ingest'])['experiment'])"
    name = project.run("python", "-c", code).splitlines()[-1]
    assert name in project.dvc("exp", "list", "--name-only").split()


def test_log_lines_of_stages_are_on_the_server(deployed, first_run):
    logs = _api(deployed, "logs/filter", {"logs": {"flow_run_id": {"any_": [first_run["id"]]}}})
    assert any("fid_efficientnet_lite0" in line["message"] for line in logs)
    assert Path(deployed.root / ".ganpipe" / "workspaces").is_dir()
