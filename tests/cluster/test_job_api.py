"""A driver outside the cluster: its work is a job there, which outlives it, is found again, and ends when told to."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Host, Network, require_namespaces, start_mlflow
from projects import Project, make_project
from reliability import fault

pytestmark = pytest.mark.slow
NUM_IMAGES = 60_000
"""For so long that a driver can be started anew meanwhile."""
STATES = """
import json, sys
from ray.job_submission import JobSubmissionClient
jobs = JobSubmissionClient(sys.argv[1]).list_jobs()
print(json.dumps({job.submission_id: job.status for job in jobs if job.submission_id}))
"""


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Host]:
    """A host without Ray, with a checkout; beside it a cluster of one host that does not see the checkout."""
    require_namespaces()
    project = make_project(tmp_path / "checkout")
    for key, value in {
        "cluster.storage_path": f"file://{tmp_path}/shared",
        "train.num_images": NUM_IMAGES,
        "train.checkpoint_every": 500,
        "tune.cpus_per_worker": 1,
    }.items():
        project.set(key, value)
    project.dvc("repro", "ingest")
    project.dvc("remote", "add", "--default", "store", str(tmp_path / "remote"))
    project.dvc("push")
    with Network(tmp_path / "hosts") as network:
        head, laptop = network.add("head"), network.add("laptop")
        head.hide(project.root)
        head.start_ray(2, dashboard=True)
        start_mlflow(head, tmp_path)
        yield laptop


class Outside:
    """The checkout on the laptop, and commands there."""

    def __init__(self, laptop: Host, folder: Path) -> None:
        self.laptop, self.folder = laptop, folder
        self.project = Project(folder / "checkout", {})
        head = laptop.network.hosts[0]
        self.server = f"http://{head.address}:8265"
        self.variables = laptop.environment(
            RAY_ADDRESS=self.server,
            MLFLOW_TRACKING_URI=f"http://{head.address}:5000",
            PYTHONPATH=str(self.project.root),
            GIT_CONFIG_GLOBAL="/dev/null",
        )

    def start(self, *command: str) -> subprocess.Popen[str]:
        with (self.folder / "said").open("w") as said:
            return self.laptop.start(
                command, self.project.root, env=self.variables, stdout=said, stderr=subprocess.STDOUT
            )

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def finish(self, *command: str) -> str:
        process = self.start(*command)
        assert process.wait(400) == 0, self.said()[-5000:]
        return self.said()

    def jobs(self) -> dict[str, str]:
        """Status by submission id, as the job server tells it."""
        done = self.laptop.run([sys.executable, "-c", STATES, self.server], env=self.variables)
        return dict(json.loads(done.stdout))

    def wait_for_checkpoint(self, driver: subprocess.Popen[str]) -> None:
        """Return when the training that `driver` follows, a new one, has left its first checkpoint."""
        shared = self.folder / "shared"
        before = {path.parent for path in shared.glob("train-*/checkpoints/*.pt")}

        def there() -> bool:
            assert driver.poll() is None, self.said()
            return any(path.parent not in before for path in shared.glob("train-*/checkpoints/*.pt"))

        self.laptop.network.wait_for(there, 300, "a checkpoint")

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to the `ganpipe train` that runs."""
        [process] = [
            process
            for process in self.laptop.ray_processes("train")
            if any(part.endswith("/ganpipe") for part in process.cmdline())
        ]
        process.send_signal(number)


@pytest.mark.fault
def test_a_driver_outside_the_cluster(laptop: Host, tmp_path: Path) -> None:
    outside = Outside(laptop, tmp_path)
    outside.finish("ganpipe", "check")
    said = outside.finish("dvc", "repro", "tune")
    assert re.search(r"submitted to http://10.77.0.1:8265 as the job ganpipe-tune-\w{16}", said)
    assert "trials done" in said, "the job's own output is shown"
    best = json.loads((outside.project.root / "artifacts" / "tune" / "best.json").read_text())
    assert set(best) == {"generator", "discriminator"}

    driver = outside.start("ganpipe", "train")
    outside.wait_for_checkpoint(driver)
    with fault("SIGKILL to a driver outside the cluster") as trial:
        outside.tell(signal.SIGKILL)
        trial.struck()
        driver.wait(60)
        [(name, status)] = [(name, status) for name, status in outside.jobs().items() if "-train-" in name]
        assert status == "RUNNING", "the job ended with its driver"
        said = outside.finish("ganpipe", "train")
        trial.recovered()
    assert f"found the job {name} at" in said
    assert "going on from" not in said, "the job went on all the time"
    assert outside.jobs()[name] == "SUCCEEDED"
    model = json.loads((outside.project.root / "artifacts" / "train" / "model.json").read_text())
    assert model["progress"]["images_seen"] == NUM_IMAGES

    outside.project.set("train.seed", 1)
    driver = outside.start("ganpipe", "train")
    outside.wait_for_checkpoint(driver)
    with fault("SIGTERM to a driver outside the cluster, which cancels its job") as trial:
        outside.tell(signal.SIGTERM)
        trial.struck()
        assert driver.wait(60) == 130, outside.said()
        [cancelled] = [other for other in outside.jobs() if "-train-" in other and other != name]
        laptop.network.wait_for(lambda: outside.jobs()[cancelled] in ("STOPPED", "FAILED"), 60, "the end of the job")
        said = outside.finish("ganpipe", "train")
        trial.recovered(lost="the images since the last checkpoint")
    assert f"as the job {cancelled}" in said
    assert re.search(r"going on from [\d,]+ images", said)
