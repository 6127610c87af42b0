"""A flow run that trains on Ray is killed or cancelled: nothing of it stays at work, and its re-run goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from deployment_parts import Site, started, wait
from projects import Project
from reliability import fault

from ganpipe import environment, processes, services

pytestmark = [pytest.mark.slow, pytest.mark.fault]

NUM_IMAGES = 60_000
"""So many that a training does not end by itself before it is struck, and soon enough afterwards."""
# What is in use, as a client in a process of its own sees it.
USED = """
import json, ray
from ray.util.state import list_actors, list_placement_groups
ray.init(logging_level="ERROR", log_to_driver=False)
print(json.dumps({
    "total": ray.cluster_resources().get("CPU", 0),
    "free": ray.available_resources().get("CPU", 0),
    # Ray Train keeps one for its dashboard, without a CPU.
    "actors": [one.class_name for one in list_actors(filters=[("state", "=", "ALIVE")])
               if one.class_name != "TrainStateActor"],
    "groups": [one.placement_group_id for one in list_placement_groups() if one.state != "REMOVED"],
}))
"""


@pytest.fixture(scope="module")
def site(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The project after its run, deployed, with a Ray head that all its runs share."""
    copy = project.copy(tmp_path_factory.mktemp("trained") / "checkout")
    copy = Project(copy.root, {**copy.environment, "PYTHONPATH": str(copy.root)})
    with started(copy) as site:
        services.ensure("ray", copy.root)
        yield site


def used(site: Site) -> dict[str, Any]:
    ray = services.running("ray", site.root)
    assert ray is not None, "the Ray head is gone"
    variables = {**site.project.environment, **environment.LOOPBACK_RAY, "RAY_ADDRESS": ray.address}
    found = Project(site.root, variables).run("python", "-c", USED)
    return dict(json.loads(found.splitlines()[-1]))


def begin_training(site: Site, name: str, seed: int, num_checkpoints: int) -> str:
    """A run whose training would take minutes, once it has written so many checkpoints."""
    run = site.begin(
        name,
        f'overrides={{"train.num_images": {NUM_IMAGES}, "train.checkpoint_every": 2000, "train.seed": {seed}}}',
        'targets=["train"]',
    )
    work = site.root / ".ganpipe" / "work"

    def checkpoints() -> bool:
        assert site.state(run) not in ("Failed", "Crashed", "Completed", "Cancelled"), site.message(run)
        return len(set(work.glob("train-*/checkpoints/checkpoint-*.pt")) - before) >= num_checkpoints

    before = set(work.glob("train-*/checkpoints/checkpoint-*.pt"))
    wait(checkpoints, "checkpoints are written", 240)
    return run


def is_idle(site: Site) -> bool:
    """Nothing is at work in Ray: all CPUs are free, no actor but Ray's own and no placement group is left."""

    def idle() -> bool:
        found = used(site)
        actors = [name for name in found["actors"] if not name.startswith("_")]
        return bool(found["free"] == found["total"] and not actors and not found["groups"])

    return bool(wait(idle, f"Ray is idle again: {used(site)}", 90))


def test_cancelling_a_run_stops_rays_work_and_frees_its_resources(site: Site) -> None:
    with fault("a flow run cancelled while it trains on Ray") as trial:
        run = begin_training(site, "cancelled", seed=1, num_checkpoints=1)
        assert used(site)["free"] < used(site)["total"]
        trial.struck()
        site.project.run("prefect", "flow-run", "cancel", run)
        assert site.ends(run, 90) == "Cancelled"
        assert is_idle(site)
        trial.recovered(lost="the images since the last checkpoint")
        wait(lambda: not processes.having_argument("workspaces/cancelled"), "nothing of the run is left", 30)
        ray = services.running("ray", site.root)
        assert ray is not None
        assert services.is_healthy(ray)  # other runs use it, too


def test_a_worker_is_killed_and_the_re_run_goes_on_from_the_last_checkpoint(site: Site) -> None:
    with fault("SIGKILL to a Prefect worker while its run trains on Ray") as trial:
        run = begin_training(site, "killed", seed=2, num_checkpoints=2)
        trial.struck()
        site.workers[-1].kill()
        site.workers[-1].wait(timeout=30)
        assert site.ends(run, 120) == "Crashed"
        assert is_idle(site)
        site.start_worker()
        site.project.run("prefect", "flow-run", "retry", run)

        def goes_on() -> re.Match[str] | None:
            return re.search(r"going on from ([\d,]+) images", "\n".join(site.log_lines(run)))

        images = int(wait(goes_on, "the training goes on")[1].replace(",", ""))
        trial.recovered(lost="the images since the last checkpoint")
        assert images >= 4000
        assert site.ends(run, 300) == "Completed"
        assert "killed" in site.project.dvc("exp", "list", "--name-only").split()
