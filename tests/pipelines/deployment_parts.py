"""A checkout with a Prefect server, the deployments of prefect.yaml, and workers that a test starts and ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from projects import SOURCE, Project, environment_of

from ganpipe import processes, services

DEPLOYMENT = "pipeline/default"


def wait(condition: Callable[[], Any], what: str, seconds: float = 240) -> Any:
    """What `condition` gives once it is something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.25)
    return found


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and all that it started, as when a host loses its power."""
    members = processes.tree(pid)
    for process in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait(lambda: not any(processes.is_alive(process.pid) for process in members), "the killed processes are gone", 20)


@dataclass
class Site:
    """A project that is deployed on a server of its own; `started` does it.

    Attributes:
        workers: those that were started, in order.
    """

    project: Project
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.project.root

    def start_server(self) -> None:
        """As `ganpipe up prefect`; again after a kill, where it was."""
        server = services.ensure("prefect", self.root)
        variables = services.client_environment({"prefect": server}, self.root)
        known = self.project.environment.get("PREFECT_API_URL")
        assert known in (None, variables["PREFECT_API_URL"]), "the server came back at another address"
        self.project.environment.update(variables)

    def kill_server(self) -> None:
        """SIGKILL to the server."""
        server = services.running("prefect", self.root)
        assert server is not None
        kill_tree(server.pid or 0)

    def deploy(self) -> None:
        """As docs/operations.md says."""
        self.project.run("prefect", "work-pool", "create", "ganpipe", "--type", "process")
        self.project.run("prefect", "--no-prompt", "deploy", "--all")

    def start_worker(self) -> subprocess.Popen[bytes]:
        """A worker, from elsewhere: the deployment says where the checkout is."""
        elsewhere = self.root.parent / f"{self.root.name}-worker"
        elsewhere.mkdir(exist_ok=True)
        with self.log.open("ab") as file:
            worker = subprocess.Popen(
                ["prefect", "worker", "start", "--pool", "ganpipe"],
                cwd=elsewhere,
                env=self.project.environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    @property
    def log(self) -> Path:
        return self.root.parent / f"{self.root.name}-worker.log"

    def api(self, path: str, body: Any = None) -> Any:
        """What the server's API answers: a POST where there is a body."""
        request = urllib.request.Request(
            f"{self.project.environment['PREFECT_API_URL']}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            text = response.read()
        return json.loads(text) if text else None

    def runs(self, deployment: str = DEPLOYMENT) -> list[dict[str, Any]]:
        flow, name = deployment.split("/")
        body = {"deployments": {"name": {"any_": [name]}}, "flows": {"name": {"any_": [flow]}}}
        return list(self.api("flow_runs/filter", body))

    def begin(self, name: str, *parameters: str, deployment: str = DEPLOYMENT) -> str:
        """Ask for a run; its id."""
        arguments = [argument for parameter in parameters for argument in ("--param", parameter)]
        self.project.run("prefect", "deployment", "run", deployment, "--flow-run-name", name, *arguments)
        (run,) = [run for run in self.runs(deployment) if run["name"] == name]
        return str(run["id"])

    def state(self, run_id: str) -> str:
        return str(self.api(f"flow_runs/{run_id}")["state_name"])

    def message(self, run_id: str) -> str:
        return str(self.api(f"flow_runs/{run_id}")["state"]["message"])

    def ends(self, run_id: str, seconds: float = 240) -> str:
        """The name of the run's last state, once it has ended."""
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

        def state() -> str:
            found = self.api(f"flow_runs/{run_id}")
            return str(found["state_name"]) if found["state_type"] in final else ""

        return str(wait(state, f"the run ends; it is {self.state(run_id)}", seconds))

    def log_lines(self, run_id: str) -> list[str]:
        logs = self.api("logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"})
        return [line["message"] for line in logs]

    def artifacts(self, run_id: str) -> dict[str, Any]:
        found = self.api("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
        return {artifact["key"]: artifact for artifact in found}

    def close(self) -> None:
        for worker in self.workers:
            processes.end_tree(worker.pid)
            worker.wait(timeout=30)
            processes.end(processes.group(worker.pid))
        services.stop(self.root)
        print(self.log.read_text(encoding="utf-8") if self.log.exists() else "no worker")


@contextmanager
def started(project: Project) -> Iterator[Site]:
    """The project with a server, its deployments and a worker; all of it gone in the end."""
    site = Site(project)
    try:
        site.start_server()
        site.deploy()
        site.start_worker()
        yield site
    finally:
        site.close()


TWO_STAGES = """
stages:
  first:
    cmd: PYTHON work.py first
    deps: [work.py]
    params: [number]
    outs: [first.txt]
    meta: {retries: 2, retry_delay_seconds: 5}
  second:
    cmd: PYTHON work.py second
    deps: [first.txt, work.py]
    metrics: [second.json]
"""
WORK = """
import json, os, pathlib, sys, time
import yaml
number = yaml.safe_load(open("params.yaml"))["number"]
place = pathlib.Path(os.environ["GANPIPE_CHECKOUT"], ".ganpipe", "seen")
place.mkdir(parents=True, exist_ok=True)
if sys.argv[1] == "first":
    with open(place / f"{number}.pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    # A number of 100 and more is held up until the test lets it go on.
    while number >= 100 and not (place / f"{number}.go").exists():
        time.sleep(0.1)
    pathlib.Path("first.txt").write_text(str(number))
else:
    pathlib.Path("second.json").write_text(json.dumps({"score": int(pathlib.Path("first.txt").read_text()) ** 2}))
"""


def tiny_project(root: Path) -> Project:
    """A checkout with this project's flows and two stages of a few lines: the first can be held up."""
    root.mkdir(parents=True)
    shutil.copytree(SOURCE / "pipelines", root / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SOURCE / "prefect.yaml", root / "prefect.yaml")
    (root / "dvc.yaml").write_text(TWO_STAGES.replace("PYTHON", "python"), encoding="utf-8")
    (root / "work.py").write_text(WORK, encoding="utf-8")
    (root / "params.yaml").write_text("number: 1\ntrain:\n  gan: none\n", encoding="utf-8")
    (root / ".gitignore").write_text("__pycache__\n/.ganpipe/\n/first.txt\n/second.json\n", encoding="utf-8")
    variables = environment_of(root)
    variables["PYTHONPATH"] = os.pathsep.join([str(root), str(SOURCE)])
    project = Project(root, variables)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.dvc("init", "--quiet")
    project.commit("Two stages")
    return project


def held(site: Site, number: int) -> int:
    """The process of the stage `first` that is held up with this number, once it is there (the newest)."""
    path = site.root / ".ganpipe" / "seen" / f"{number}.pids"

    def alive() -> int:
        pids = [int(line) for line in path.read_text().split()] if path.exists() else []
        return pids[-1] if pids and processes.is_alive(pids[-1]) else 0

    return int(wait(alive, f"stage `first` of {number} runs"))


def let_go(site: Site, number: int) -> None:
    (site.root / ".ganpipe" / "seen" / f"{number}.go").touch()


def flow_process(site: Site, stage: int) -> psutil.Process:
    """The process of Prefect's engine that runs the flow whose stage is the process `stage`."""
    for parent in psutil.Process(stage).parents():
        if "prefect" in " ".join(parent.cmdline()) and "dvc" not in " ".join(parent.cmdline()):
            return parent
    raise AssertionError(f"no flow above process {stage}")


def stop_politely(worker: subprocess.Popen[bytes]) -> None:
    """As a service manager does it: SIGTERM, and SIGKILL to what is still there after its time.

    Prefect's worker may wait for the runs that it has.
    """
    worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(timeout=30)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait(timeout=30)
