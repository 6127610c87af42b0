"""A training killed with SIGKILL at any moment makes the same bytes, and logs nothing twice. Without Ray, so that many
kills cost little."""

from __future__ import annotations

import contextlib
import random
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fault_parts import MOMENTS, Training, new_training, start, warm_up
from reliability import fault
from training_parts import largest_difference

LOST = "the images since the last checkpoint"
QUICK = {"halfway through writing a checkpoint", "after MLflow has taken metrics, before that is noted"}
"""The moments that `make test` tries; all are in the slow suite."""


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """By (GAN, number of processes): what its training makes that nobody disturbs, and the seconds that it took."""

    @cache
    def of(gan: str, world_size: int) -> tuple[dict[str, Any], float]:
        training = new_training(shards, tmp_path_factory.mktemp("undisturbed"), gan)
        warm_up()
        began = time.monotonic()
        children = start(training, world_size=world_size)
        assert [child.end() for child in children] == [0] * world_size
        return training.made(), time.monotonic() - began

    return of


def same(training: Training, expected: dict[str, Any]) -> None:
    made = training.made()
    for name, value in expected.items():
        assert made[name] == value, f"{name} is another one"


@pytest.mark.fault
@pytest.mark.parametrize(
    "moment", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MOMENTS]
)
def test_killed_at_a_bad_moment(moment: str, shards: Path, tmp_path: Path, undisturbed: Any) -> None:
    expected, _ = undisturbed("dcgan", 1)
    training = new_training(shards, tmp_path, "dcgan")
    with fault(f"SIGKILL to a training {moment}") as trial:
        (child,) = start(training, at=moment)
        assert child.end() == -9, "it was not killed, so nothing was tested"
        trial.struck()
        (again,) = start(training)
        assert again.going.wait(300)
        trial.recovered(lost=LOST)
        assert again.end() == 0
        same(training, expected)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize(("gan", "world_size"), [("gan", 1), ("dcgan", 1), ("cgan", 1), ("wgan_gp", 1), ("dcgan", 2)])
def test_killed_again_and_again(gan: str, world_size: int, shards: Path, tmp_path: Path, undisturbed: Any) -> None:
    expected, seconds = undisturbed(gan, world_size)
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"seed {seed}")
    training = new_training(shards, tmp_path, gan)
    num_killed = 0
    with contextlib.ExitStack() as trials:
        children = start(training, world_size=world_size)
        for _ in range(4):
            time.sleep(chance.uniform(0, 0.5 * seconds))
            victim = chance.choice(children)
            victim.process.kill()
            if victim.end() == 0:
                break  # luck: it came to its end between two kills
            num_killed += 1
            plural = "es" if world_size > 1 else ""
            trial = trials.enter_context(fault(f"SIGKILL to a training at random, {world_size} process{plural}"))
            trial.struck()
            for child in children:  # where one of several dies, the others end: they miss it, or are ended by Ray
                child.process.kill()
                child.end()
            children = start(training, world_size=world_size)
            assert children[0].going.wait(300)
            trial.recovered(lost=LOST)
        assert [child.end() for child in children] == [0] * world_size
        assert num_killed >= 1, f"it ended before the first kill; seed {seed}"
        same(training, expected)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_checkpoint_is_taken_up_by_another_number_of_workers(
    before: int, after: int, shards: Path, tmp_path: Path
) -> None:
    settings = {"precision": "fp64", "num_images": 960, "checkpoint_every": 160}
    straight = new_training(shards, tmp_path / "straight", "dcgan", **settings)
    (alone,) = start(straight)
    training = new_training(shards, tmp_path / "killed", "dcgan", **settings)
    with fault(f"SIGKILL to {before} of a training that goes on with {after}") as trial:
        children = start(training, at="before old checkpoints are removed", world_size=before)
        assert children[0].end() == -9
        for child in children:
            child.process.kill()
            child.end()
        trial.struck()
        children = start(training, world_size=after)
        assert children[0].going.wait(300)
        trial.recovered(lost=LOST)
        assert [child.end() for child in children] == [0] * after
        assert alone.end() == 0
        found, expected = (one.job.store.load(960)["gan"] for one in (training, straight))
        assert largest_difference(found, expected) < 1e-7
        training.metrics()
