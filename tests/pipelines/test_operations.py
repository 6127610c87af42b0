"""Every command of docs/operations.md, in its order, in a checkout of its own with real services."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from projects import SOURCE, Project, add_makefile, make_project

from ganpipe import processes
from ganpipe.service_kinds import free_port

PAGE = SOURCE / "docs" / "operations.md"
FENCE = re.compile(r"^## (?P<title>[^\n]+)$|^```sh(?P<own> own terminal)?\n(?P<body>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One block of commands under a heading."""

    title: str
    body: str
    own_terminal: bool


def blocks(text: str) -> list[Block]:
    found, title = [], ""
    for match in FENCE.finditer(text):
        if match["title"]:
            title = match["title"]
        else:
            found.append(Block(title, match["body"].strip(), match["own"] is not None))
    return found


@dataclass
class Terminals:
    """A person's terminals in the checkout: what one exports, later blocks have; what runs on, runs on."""

    project: Project
    ports: dict[str, str]
    """Ports of the page, and those that are free here."""
    exported: list[str] = field(default_factory=list)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(self, block: Block) -> str:
        body = block.body
        for port, free in self.ports.items():
            body = body.replace(f":{port}", f":{free}").replace(f"port {port}", f"port {free}")
        if block.own_terminal:
            self._start(body)
            return ""
        lines = [line for line in body.splitlines() if line.startswith("export ")]
        done = self.project.run("bash", "-euo", "pipefail", "-c", "\n".join([*self.exported, f"({body}\n) 2>&1"]))
        self.exported += lines
        return done

    def _start(self, body: str) -> None:
        log = self.log(body)
        with log.open("wb") as file:
            self.running[body] = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", "\n".join([*self.exported, f"exec {body}"])],
                cwd=self.project.root,
                env=self.project.environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        ready = next(pattern for command, pattern in READY.items() if body.startswith(command))
        deadline = time.monotonic() + 120
        while not self._is_ready(ready, log):
            assert self.running[body].poll() is None, f"{body} ended: {log.read_text()}"
            assert time.monotonic() < deadline, f"{body} is not ready: {log.read_text()}"
            time.sleep(0.5)

    def log(self, body: str) -> Path:
        return self.project.root.parent / f"{re.sub(r'[^a-z]+', '-', body[:40].lower())}.log"

    def _is_ready(self, ready: str, log: Path) -> bool:
        if not ready.startswith("http"):
            return ready in log.read_text()
        for port, free in self.ports.items():
            ready = ready.replace(f":{port}", f":{free}")
        try:
            with urllib.request.urlopen(ready, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def end(self) -> None:
        for body, process in self.running.items():
            processes.end_tree(process.pid)
            process.wait(timeout=60)
            print(f"--- {body}\n{self.log(body).read_text()[-4000:]}")


READY = {
    "prefect server start": "http://127.0.0.1:4200/api/health",
    "prefect worker start": "started!",
    "ganpipe ingest --watch": "watching the source",
    "ganpipe serve": "http://127.0.0.1:8090/readyz",
}
"""When a command that runs on is ready: an address that answers, or words in what it prints."""


@pytest.fixture(scope="module")
def terminals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminals]:
    project = make_project(tmp_path_factory.mktemp("operations") / "project")
    add_makefile(project)
    origin = project.root.parent / "origin.git"
    project.run("git", "clone", "--quiet", "--bare", str(project.root), str(origin))
    project.run("git", "remote", "add", "origin", str(origin))
    project.run("git", "fetch", "--quiet", "origin")
    project.run("git", "branch", "--quiet", "--set-upstream-to", "origin/main")
    ports = {port: str(free_port()) for port in ("4200", "8090", "9999")}
    project.environment.update(
        PREFECT_HOME=str(project.root.parent / "prefect"),
        PREFECT_SERVER_API_PORT=ports["4200"],
    )
    project.dvc("repro")
    terminals = Terminals(project, ports)
    try:
        yield terminals
    finally:
        terminals.end()
        project.run("ganpipe", "down")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_command_of_the_runbook(terminals: Terminals) -> None:
    said: dict[str, str] = {}
    for block in blocks(PAGE.read_text(encoding="utf-8")):
        print(f"=== {block.title}\n{block.body}", flush=True)
        output = terminals.run(block)
        said[block.title] = said.get(block.title, "") + output
        print(output, flush=True)
    assert said["Run"].count("finished successfully") == 4
    assert "ganpipe: the champion changed" in said["Be told"]
    assert "params.yaml, data source, GAN, resources, disk and MLflow: ready" in said["Upgrade"]


def test_the_page_has_a_block_in_every_section_that_tells_what_to_do() -> None:
    titles = {block.title for block in blocks(PAGE.read_text(encoding="utf-8"))}
    sections = set(re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.M)) - {"When something fails"}
    assert titles == sections
