"""A training on Ray whose processes are killed, one by one: workers, the actor that controls them, the stage."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fault_parts import Training, new_training, start
from reliability import fault

from ganpipe import processes
from ganpipe.errors import EXIT_UNAVAILABLE

LOST = "the images since the last checkpoint"
LONG = {"num_images": 96_000, "checkpoint_every": 6_400, "log_every": 3_200, "samples_at_updates": [1_000]}
"""Long enough to be alive when the last of its killers comes."""


class Driver:
    """A process that drives a training on Ray, as the stage `train` does."""

    def __init__(self, address: str, training: Training, num_workers: int, log: Path) -> None:
        self._command = [sys.executable, __file__, address, str(num_workers)]
        self._training, self._log = training, log
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self.process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=log, stderr=log)
        assert self.process.stdin is not None
        self.process.stdin.write(pickle.dumps(self._training))
        self.process.stdin.close()

    def end(self) -> int:
        return self.process.wait(timeout=300)


def main() -> None:
    """The driver's process."""
    from ganpipe.errors import UnavailableError
    from ganpipe.stages.train import GRACE_SECONDS
    from ganpipe.training import cluster
    from ganpipe.training.settings import ClusterSettings
    from ganpipe.training.worker import train

    training: Training = pickle.load(sys.stdin.buffer)  # noqa: S301 - from this test
    processes.exit_on_sigterm()
    cluster.connect(sys.argv[1])
    settings = ClusterSettings(num_workers=int(sys.argv[2]), cpus_per_worker=0.5, max_failures=8)
    try:
        with processes.graceful_sigterm(training.job.store.request_stop, GRACE_SECONDS):
            train(training.job, settings)
    except UnavailableError as error:
        print(f"error: {error}", flush=True)
        sys.exit(EXIT_UNAVAILABLE)


def actors(address: str, name: str) -> list[psutil.Process]:
    """Ray's actors of that class on the head at `address`: its raylet, their parent, is told the address."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            titles = process.cmdline()
            parent = process.parent()
            if any(name in part for part in titles) and parent and any(address in part for part in parent.cmdline()):
                found.append(process)
    return found


def wait_for(what: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.02)


def signal_to(kind: str, number: int) -> Callable[[str, Driver, random.Random], None]:
    def strike(address: str, driver: Driver, chance: random.Random) -> None:
        if kind == "stage":
            driver.process.send_signal(number)
            assert driver.end() in (-signal.SIGKILL, EXIT_UNAVAILABLE)
            driver.start()
        else:
            chance.choice(actors(address, kind)).send_signal(number)

    return strike


FAULTS: dict[str, Callable[[str, Driver, random.Random], None]] = {
    "SIGKILL to a worker": signal_to("RayTrainWorker", signal.SIGKILL),
    "SIGTERM to a worker": signal_to("RayTrainWorker", signal.SIGTERM),
    "SIGKILL to Ray Train's controller": signal_to("TrainController", signal.SIGKILL),
    "SIGKILL to the stage": signal_to("stage", signal.SIGKILL),
    "SIGTERM to the stage": signal_to("stage", signal.SIGTERM),
}


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("num_workers", [1, 2])
def test_killed_on_ray(num_workers: int, ray_head: str, shards: Path, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"seed {seed}")
    straight = new_training(shards, tmp_path / "straight", "gan", **LONG)
    undisturbed = start(straight, world_size=num_workers)
    assert [child.end() for child in undisturbed] == [0] * num_workers
    training = new_training(shards, tmp_path / "killed", "gan", **LONG)
    driver = Driver(ray_head, training, num_workers, tmp_path / "log")
    order = [*FAULTS, "SIGKILL to a worker"]
    chance.shuffle(order)
    plural = "s" if num_workers > 1 else ""
    try:
        with contextlib.ExitStack() as trials:
            seen = 0
            for name in order:
                wait_for(lambda: _last(training) > seen)  # noqa: B023 - called within this turn
                time.sleep(chance.uniform(0, 0.5))
                trial = trials.enter_context(fault(f"{name}, {num_workers} worker{plural}"))
                assert _last(training) < LONG["num_images"], f"it had ended before {name}; seed {seed}"
                FAULTS[name](ray_head, driver, chance)
                trial.struck()
                seen = _last(training)
                wait_for(lambda: _last(training) > seen or driver.process.poll() is not None)  # noqa: B023
                assert driver.process.poll() in (None, 0), (tmp_path / "log").read_text()[-3000:]
                trial.recovered(lost="nothing: it ends at a checkpoint" if name == "SIGTERM to the stage" else LOST)
            assert driver.end() == 0, (tmp_path / "log").read_text()[-3000:]
            _same(training, straight)
        assert "training stopped after" in (tmp_path / "log").read_text(), "SIGTERM was no request"
    finally:
        processes.end_tree(driver.process.pid)
        print((tmp_path / "log").read_text()[-3000:])


def _last(training: Training) -> int:
    return max(training.job.store.list(), default=0)


def _same(training: Training, straight: Training) -> None:
    made, expected = training.made(), straight.made()
    # SIGTERM leaves a checkpoint out of turn; which are still there depends on when it came.
    for name in sorted(expected.keys() - {"checkpoints"}):
        assert made[name] == expected[name], f"{name} is another one"


@pytest.mark.slow
def test_the_resources_of_a_killed_driver_are_free_for_the_next(ray_head: str, shards: Path, tmp_path: Path) -> None:
    import ray

    training = new_training(shards, tmp_path, "gan", **LONG)
    driver = Driver(ray_head, training, 1, tmp_path / "log")
    wait_for(lambda: _last(training) > 0)
    assert ray.available_resources()["CPU"] < ray.cluster_resources()["CPU"]
    os.kill(driver.process.pid, signal.SIGKILL)
    driver.process.wait()
    wait_for(lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"], 60)
    wait_for(lambda: not actors(ray_head, "RayTrainWorker"), 60)  # its process ends a moment after


if __name__ == "__main__":
    from test_kill_on_ray import main as _main

    _main()
