"""Prefect's server and workers end in all ways while runs are at work: on two stages of a few lines, for real."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import psutil
import pytest
from deployment_parts import Site, flow_process, held, kill_tree, let_go, started, stop_politely, tiny_project, wait
from reliability import fault

from ganpipe import processes

pytestmark = [pytest.mark.slow, pytest.mark.fault]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with started(tiny_project(tmp_path_factory.mktemp("faults") / "tiny")) as site:
        site.project.run("python", "-m", "pipelines.automations")
        yield site


@pytest.fixture
def site(deployed: Site) -> Site:
    """The project with a worker that lives."""
    if not deployed.workers or deployed.workers[-1].poll() is not None:
        deployed.start_worker()
    return deployed


def begin_held(site: Site, name: str, number: int) -> tuple[str, int]:
    """A run that is at work in its first stage: its id, and the stage's process."""
    run = site.begin(name, f'overrides={{"number": {number}}}')
    return run, held(site, number)


def is_gone(pid: int) -> bool:
    return bool(wait(lambda: not processes.is_alive(pid), "the stage's process ends", 60))


def goes_on(site: Site, run: str, number: int) -> None:
    """Started again as its own words say, the run goes on in its workspace and ends well."""
    site.start_worker()
    site.project.run("prefect", "flow-run", "retry", run)
    held(site, number)


def ends_well(site: Site, run: str, name: str, number: int) -> None:
    let_go(site, number)
    assert site.ends(run) == "Completed"
    assert name in site.project.dvc("exp", "list", "--name-only").split()
    assert not (site.root / ".ganpipe" / "workspaces" / name).exists()


def test_a_worker_that_is_killed_takes_its_run_along_which_then_goes_on(site: Site) -> None:
    with fault("SIGKILL to a Prefect worker") as trial:
        run, stage = begin_held(site, "killed", 101)
        worker = site.workers[-1]
        trial.struck()
        worker.kill()
        worker.wait(timeout=30)
        assert is_gone(stage)
        assert site.ends(run, 60) == "Crashed"
        assert wait(lambda: [line for line in site.log_lines(run) if "is gone; ending it" in line], "it says why", 30)
        assert any(f"`prefect flow-run retry {run}`" in line for line in site.log_lines(run))
        goes_on(site, run, 101)
        trial.recovered(lost="what the stage did since its last checkpoint")
        ends_well(site, run, "killed", 101)


def test_a_worker_that_is_restarted_takes_its_run_along_which_then_goes_on(site: Site) -> None:
    with fault("SIGTERM to a Prefect worker, as for an upgrade") as trial:
        run, stage = begin_held(site, "stopped", 102)
        trial.struck()
        stop_politely(site.workers[-1])
        assert is_gone(stage)
        # Said by the flow itself where Prefect's worker leaves it the time, else by its missing heartbeats.
        assert site.ends(run, 300) == "Crashed"
        goes_on(site, run, 102)
        trial.recovered(lost="what the stage did since its last checkpoint")
        ends_well(site, run, "stopped", 102)


def test_a_run_whose_host_dies_is_marked_as_crashed_within_minutes(site: Site) -> None:
    with fault("SIGKILL to a Prefect worker and its flow run, as when a host dies") as trial:
        run, stage = begin_held(site, "host", 103)
        flow = flow_process(site, stage)
        trial.struck()
        site.workers[-1].kill()
        flow.kill()
        site.workers[-1].wait(timeout=30)
        # A host that dies takes the stage along; here the leash does.
        assert is_gone(stage)
        assert site.state(run) == "Running"  # there is nobody who could have said otherwise
        assert site.ends(run, 300) == "Crashed"
        assert "goes on from the last checkpoint" in site.message(run)
        goes_on(site, run, 103)
        trial.recovered(lost="what the stage did since its last checkpoint")
        ends_well(site, run, "host", 103)


def test_a_run_whose_worker_dies_before_it_begins_is_marked_as_crashed(site: Site) -> None:
    nightly = "pipeline/nightly"  # which takes one run: a run that stays pending would be in its way every night
    with fault("SIGKILL to a Prefect worker that took a run and has not begun it") as trial:
        site.project.run("python", "-m", "pipelines.automations", "--pending-seconds", "30")
        time.sleep(10)  # the server's triggers look for new automations now and then
        try:
            (deployment,) = site.api("deployments/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
            parameters = {**deployment["parameters"], "overrides": {"number": 111}}
            asked = {"name": "unbegun", "parameters": parameters, "state": {"type": "SCHEDULED"}}
            run = str(site.api(f"deployments/{deployment['id']}/create_flow_run", asked)["id"])
            while site.api(f"flow_runs/{run}")["state_type"] != "PENDING":
                time.sleep(0.05)
            worker = site.workers[-1]
            psutil.Process(worker.pid).suspend()  # so that it starts nothing between the look and the kill
            trial.struck()
            kill_tree(worker.pid)
            worker.wait(timeout=30)
            assert site.api(f"flow_runs/{run}")["state_type"] == "PENDING"
            assert site.ends(run, 120) == "Crashed"
            assert site.message(run).startswith("Pending for 30 s: the worker that took it died before the run began.")
        finally:
            site.project.run("python", "-m", "pipelines.automations")
        goes_on(site, run, 111)
        trial.recovered(lost="nothing")
        ends_well(site, run, "unbegun", 111)
        assert {found["name"] for found in site.runs(nightly)} >= {"unbegun"}


def test_a_run_outlives_its_server(site: Site) -> None:
    with fault("SIGKILL to Prefect's server, started again") as trial:
        run, stage = begin_held(site, "server", 104)
        trial.struck()
        site.kill_server()
        let_go(site, 104)  # the stage ends, and the next one begins, while nobody can be told
        assert is_gone(stage)
        second = site.root / ".ganpipe" / "workspaces" / "server" / "second.json"
        wait(second.exists, "the second stage runs without a server", 60)
        site.start_server()
        assert site.ends(run) == "Completed"
        trial.recovered()
        assert {"second-second", "pipeline-report"} <= set(site.artifacts(run))
        assert "server" in site.project.dvc("exp", "list", "--name-only").split()
        # The worker is still the one from before, and takes up another run.
        assert site.workers[-1].poll() is None
        after = site.begin("after-the-server", 'overrides={"number": 4}')
        assert site.ends(after) == "Completed"


def test_cancelling_ends_the_stage_and_begins_no_other(site: Site) -> None:
    with fault("a flow run cancelled") as trial:
        run, stage = begin_held(site, "cancelled", 105)
        trial.struck()
        site.project.run("prefect", "flow-run", "cancel", run)
        assert is_gone(stage)
        assert site.ends(run, 60) == "Cancelled"
        trial.recovered(lost="what the stage did since its last checkpoint")
        wait(lambda: not processes.having_argument("workspaces/cancelled"), "nothing of the run is left", 60)
        tries = (site.root / ".ganpipe" / "seen" / "105.pids").read_text().split()
        assert len(tries) == 1, "the stage was tried again"
        goes_on(site, run, 105)  # whoever changed their mind
        ends_well(site, run, "cancelled", 105)


def test_ten_runs_queue_up_behind_two_at_work(site: Site) -> None:
    with fault("ten runs of one deployment at once, two at a time") as trial:
        trial.struck()
        # The two that are first are held up until all others wait.
        runs = {number: site.begin(f"many-{number}", f'overrides={{"number": {number}}}') for number in (106, 107)}
        assert held(site, 106)
        assert held(site, 107)
        runs |= {number: site.begin(f"many-{number}", f'overrides={{"number": {number}}}') for number in range(8)}
        wait(lambda: any(site.state(runs[number]) == "AwaitingConcurrencySlot" for number in range(8)), "they wait")
        assert not [number for number in range(8) if site.state(runs[number]) in ("Running", "Completed")]
        for number in (106, 107):
            let_go(site, number)
        assert {number: site.ends(run, 400) for number, run in runs.items()} == dict.fromkeys(runs, "Completed")
        trial.recovered()
        assert most_at_once(site, list(runs.values())) == 2
        kept = site.project.dvc("exp", "list", "--name-only").split()
        assert {f"many-{number}" for number in runs} <= set(kept)


def most_at_once(site: Site, runs: list[str]) -> int:
    """How many of the runs were running at one time."""
    moments: list[tuple[datetime, int]] = []
    for run in runs:
        found = site.api(f"flow_runs/{run}")
        moments += [(datetime.fromisoformat(found["start_time"]), 1), (datetime.fromisoformat(found["end_time"]), -1)]
    now = most = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


def test_a_night_that_is_not_over_is_enough(site: Site) -> None:
    nightly = "pipeline/nightly"
    with fault("a second run of a deployment that takes one (CANCEL_NEW)") as trial:
        trial.struck()
        first = site.begin("night-1", 'overrides={"number": 108}', deployment=nightly)
        held(site, 108)
        second = site.begin("night-2", 'overrides={"number": 2}', deployment=nightly)
        assert site.ends(second, 120) == "Cancelled"
        let_go(site, 108)
        assert site.ends(first) == "Completed"
        trial.recovered()


def test_a_sweep_that_is_cancelled_begins_no_more_runs(site: Site) -> None:
    with fault("a sweep cancelled") as trial:
        run = site.begin(
            "swept",
            'gans=["one"]',
            'datasets=[{"name": "a", "overrides": {"number": 109}}, {"name": "b", "overrides": {"number": 110}}]',
            deployment="sweep/default",
        )
        stage = held(site, 109)
        trial.struck()
        site.project.run("prefect", "flow-run", "cancel", run)
        assert is_gone(stage)
        assert site.ends(run, 90) == "Cancelled"
        trial.recovered(lost="what the stage did since its last checkpoint")
        wait(lambda: not processes.having_argument("workspaces/swept-one"), "nothing of the sweep is left", 60)
        assert not (site.root / ".ganpipe" / "seen" / "110.pids").exists()
