"""`dvc repro` killed in any stage: started again, it makes what an undisturbed one makes, and nobody has to tidy up."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import STAGES, Project, make_project
from reliability import Trial, fault

from ganpipe import processes, services
from ganpipe.tracking.runs import Tracker

LOST = {
    "tune": "the trials under way",
    "train": "the images since the last checkpoint",
}
"""What has to be done again; of the other stages, the stage."""
LONGER = {"train.num_images": 6_000, "train.checkpoint_every": 1_000, "tune.num_images": 1_000}


class Repro:
    """`dvc repro` in a process group of its own, and when which stage began."""

    def __init__(self, project: Project) -> None:
        self.began: dict[str, float] = {}
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            ["dvc", "repro"],
            cwd=project.root,
            env={**project.environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def follow(self, until: str | None = None) -> bool:
        """Read on until the stage `until` begins; without it, or where it never does, until the end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.match(r"Running stage '(\w+)'", line):
                self.began[found[1]] = time.monotonic()
                if found[1] == until:
                    return True
        self.began["end"] = time.monotonic()
        return False

    def strike(self, preempted: bool) -> None:
        """SIGKILL to all of the group at once, as when a host's memory is full or a session is torn down; preempted:
        SIGTERM first, and 10 s to leave."""
        members = processes.group(self.process.pid)
        if preempted:
            processes.end(members, grace_seconds=10)
        else:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        return self.process.wait(timeout=300)


def locked(project: Project) -> dict[str, Any]:
    return dict(yaml.safe_load((project.root / "dvc.lock").read_text())["stages"])


def made(root: Path) -> Project:
    project = make_project(root)
    for key, value in LONGER.items():
        project.set(key, value)
    project.commit("Long enough to be killed")
    return project


@pytest.fixture(scope="module")
def undisturbed(ray_head: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, float]]:
    """A checkout whose pipeline ran in peace, and the seconds of each stage."""
    project = made(tmp_path_factory.mktemp("undisturbed") / "project")
    project.environment["RAY_ADDRESS"] = ray_head
    repro = Repro(project)
    repro.follow()
    assert repro.end() == 0, "".join(repro.lines[-30:])
    times = list(repro.began.items())
    seconds = {name: later - began for (name, began), (_, later) in itertools.pairwise(times)}
    assert list(seconds) == STAGES
    return project, seconds


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_killed_in_every_stage(how: str, undisturbed: tuple[Project, dict[str, float]], tmp_path: Path) -> None:
    expected, seconds = undisturbed
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"seed {seed}", seconds)
    project = made(tmp_path / "project")
    if how == "SIGTERM":  # else its own Ray, in the midst of whose start it may be killed
        project.environment["RAY_ADDRESS"] = expected.environment["RAY_ADDRESS"]
    repro = Repro(project)
    try:
        with contextlib.ExitStack() as trials:
            killed: tuple[str, Trial] | None = None
            for stage in [*STAGES, "none"]:
                began = repro.follow(until=stage)
                assert began is (stage != "none"), f"not {stage}; seed {seed}\n" + "".join(repro.lines[-30:])
                if killed is not None:  # the stage that was killed has been done again, or the next would not begin
                    killed[1].recovered(lost=LOST.get(killed[0], "the stage's work"))
                if not began:
                    break
                trial = trials.enter_context(fault(f"{how} to all of `dvc repro` in the stage {stage}"))
                time.sleep(chance.uniform(0.05, 0.6) * seconds[stage])
                assert repro.process.poll() is None, f"it had ended before it was killed in {stage}; seed {seed}"
                repro.strike(preempted=how == "SIGTERM")
                trial.struck()
                killed = stage, trial
                repro = Repro(project)
            assert repro.end() == 0, "".join(repro.lines[-30:])
            assert (project.root / "dvc.lock").read_bytes() == (expected.root / "dvc.lock").read_bytes()
            assert project.files() == expected.files()
            assert_nothing_is_left(project)
    finally:
        processes.end_tree(repro.process.pid)
        services.stop(project.root)


def assert_nothing_is_left(project: Project) -> None:
    """No lock, no work, no record that waits, no run that seems to run, nothing logged twice."""
    rwlock = json.loads((project.root / ".dvc" / "tmp" / "rwlock").read_text())
    readers = [reader for path in rwlock.get("read", {}).values() for reader in path]
    # DVC leaves the names of readers that were killed, and does not wait for processes that are gone.
    assert [
        pid
        for pid in {holder["pid"] for holder in [*readers, *rwlock.get("write", {}).values()]}
        if processes.is_alive(pid)
    ] == []
    assert [path.name for path in (project.root / ".ganpipe" / "work").iterdir() if path.suffix != ".lock"] == []
    assert list((project.root / ".ganpipe" / "tracking").iterdir()) == []
    tracker = Tracker.at(project.root, "ganpipe")
    client = tracker.client()
    found = client.search_runs([tracker.experiment_id(client)])
    runs = [run for run in found if run.data.tags["ganpipe.stage"] != "trail"]  # the moves of an alias are no stage's
    names = sorted((run.data.tags["ganpipe.stage"], run.data.tags["ganpipe.run_key"]) for run in runs)
    assert len(names) == len(set(names)), f"a run was made twice: {names}"
    for run in runs:
        assert run.info.status == "FINISHED", f"{run.info.run_name} is {run.info.status}"
        for name in run.data.metrics:
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
            assert len(steps) == len(set(steps)), f"{run.info.run_name}: {name} was logged twice: {steps}"
