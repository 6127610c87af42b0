"""The search on real Ray trials."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from training_parts import SMALL

from ganpipe.errors import GanpipeError
from ganpipe.gans import load
from ganpipe.gans.base import Gan, Progress
from ganpipe.training import cluster
from ganpipe.training.search import search
from ganpipe.training.search_figure import draw_trials
from ganpipe.training.search_settings import TuneSettings
from ganpipe.training.search_space import space_by_player
from ganpipe.training.settings import ClusterSettings, TrainSettings
from ganpipe.training.state import Diverged
from ganpipe.training.trials import SearchResult, Trial
from ganpipe.training.worker import TrainingJob


class Score:
    """Stands in for quick FID, which needs minutes here: the pixel distance between samples and the data."""

    def __call__(self, gan: Gan, progress: Progress) -> float:
        import numpy as np
        from training_parts import blobs

        from ganpipe.evaluation.sampling import sample_images

        fake = sample_images(gan, progress, range(64)).astype(np.float64)
        real = (blobs(64)["image"].numpy() + 1) * 127.5
        return float(np.square(real.mean(0) - fake.mean(0)).mean())


def make_job(shards: Path, folder: Path) -> TrainingJob:
    settings = TrainSettings(gan="gan", batch_size=16, precision="fp32")
    config = load("gan").Config.model_validate(SMALL["gan"])
    return TrainingJob("gan", "gan", config, settings, str(shards), str(folder), score=Score(), score_name="distance")


def settings(**values: Any) -> TuneSettings:
    space = {"lr": {"log_uniform": [1e-4, 1e-2]}, "beta1": {"choice": [0.0, 0.5]}}
    return TuneSettings.model_validate({"num_trials": 4, "num_images": 1600, "space": space, **values})


@pytest.fixture(scope="module")
def first(ray_head: str, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    """A search in which nothing went wrong."""
    return search(make_job(shards, tmp_path_factory.mktemp("first")), settings(), ClusterSettings())


def test_a_random_search_is_the_same_twice_and_finds_the_best(
    first: SearchResult, shards: Path, tmp_path: Path
) -> None:
    again = search(make_job(shards, tmp_path), settings(), ClusterSettings())
    assert first == again
    assert len(first.trials) == 4
    assert first.trials[0].adam["generator"] == {"lr": 2e-4, "beta1": 0.5}, "the GAN's own settings come first"
    assert all(1e-4 <= t.adam[p]["lr"] <= 1e-2 for t in first.trials for p in ("generator", "discriminator"))
    assert len({trial.objective for trial in first.trials}) == 4
    assert first.best.objective == min(trial.objective for trial in first.trials)
    assert all(trial.images_seen == 1600 for trial in first.trials)


@pytest.mark.parametrize("searcher", [pytest.param("random", marks=pytest.mark.slow), "tpe"])
def test_asha_stops_poor_trials_early(searcher: str, ray_head: str, shards: Path, tmp_path: Path) -> None:
    result = search(
        make_job(shards, tmp_path),
        settings(num_trials=6, searcher=searcher, scheduler="asha", grace_images=160, reduction_factor=3),
        ClusterSettings(),
    )
    assert len(result.trials) == 6
    assert min(trial.images_seen for trial in result.trials) < 1600
    assert result.best.images_seen == 1600


def test_a_trial_that_diverges_does_not_end_the_search(ray_head: str, shards: Path, tmp_path: Path) -> None:
    space = {"lr": {"choice": [2e-4, 1e30]}}
    result = search(make_job(shards, tmp_path), settings(space=space, num_trials=3), ClusterSettings())
    assert any(math.isinf(trial.objective) for trial in result.trials), "no trial drew the learning rate that diverges"
    assert math.isfinite(result.best.objective)
    assert draw_trials(result).startswith(b"\x89PNG")


def test_the_drivers_keys_reach_neither_trials_nor_logs_of_ray(
    ray_head: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-of-the-driver")
    search(make_job(shards, tmp_path), settings(num_trials=1, num_images=160), ClusterSettings())
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    assert list(logs.glob("runtime_env*.log")), "Ray writes them elsewhere"
    assert not [log for log in logs.rglob("*") if log.is_file() and b"the-secret-of-the-driver" in log.read_bytes()]


@pytest.mark.slow
def test_trials_of_two_workers(ray_head: str, shards: Path, tmp_path: Path) -> None:
    result = search(
        make_job(shards, tmp_path), settings(num_trials=2, num_images=320, workers_per_trial=2), ClusterSettings()
    )
    assert [trial.images_seen for trial in result.trials] == [320, 320]


class Counting(Score):
    """Notes each scoring in a file, and ends a process at the one numbered `fatal`, as a preempted host would."""

    def __init__(self, calls: Path, fatal: int, victim: int | None = None) -> None:
        self.calls, self.fatal, self.victim = calls, fatal, victim

    def __call__(self, gan: Gan, progress: Progress) -> float:
        with self.calls.open("a") as file:
            file.write("x")
        if self.num_calls() == self.fatal:
            os.kill(self.victim or os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return super().__call__(gan, progress)

    def num_calls(self) -> int:
        return len(self.calls.read_text())


@pytest.mark.slow
def test_a_search_whose_trial_was_killed_goes_on(first: SearchResult, shards: Path, tmp_path: Path) -> None:
    score = Counting(tmp_path / "calls", fatal=3)
    job = dataclasses.replace(make_job(shards, tmp_path / "work"), score=score)
    one_by_one = settings(max_concurrent_trials=1)
    with pytest.raises(GanpipeError, match="1 of 4 trials failed.*the same command tries them again"):
        search(job, one_by_one, ClusterSettings(max_failures=0))
    assert score.num_calls() == 4
    result = search(job, one_by_one, ClusterSettings())
    assert score.num_calls() == 5, "trials that had finished were run again"
    assert result == first, "one after the other is not as side by side"


@pytest.mark.slow
def test_a_trial_whose_process_was_killed_starts_again(first: SearchResult, shards: Path, tmp_path: Path) -> None:
    score = Counting(tmp_path / "calls", fatal=3)
    job = dataclasses.replace(make_job(shards, tmp_path / "work"), score=score)
    result = search(job, settings(max_concurrent_trials=1), ClusterSettings(max_failures=1))
    assert score.num_calls() == 5, "one scoring was cut short, and none beside it done again"
    assert result == first


def test_a_longer_search_runs_only_what_a_shorter_one_has_not(
    first: SearchResult, shards: Path, tmp_path: Path
) -> None:
    score = Counting(tmp_path / "calls", fatal=-1)
    job = dataclasses.replace(make_job(shards, tmp_path / "work"), score=score)
    result = search(job, settings(num_trials=5), ClusterSettings(), known=first.trials)
    assert score.num_calls() == 1
    assert result.trials[:4] == first.trials
    assert result.trials[4].number == 4
    fewer = search(job, settings(num_trials=2), ClusterSettings(), known=first.trials)
    assert fewer.trials == first.trials[:2]
    assert score.num_calls() == 1


@pytest.mark.slow
def test_a_search_begins_with_what_an_earlier_one_found_good(ray_head: str, shards: Path, tmp_path: Path) -> None:
    good = {"generator": {"lr": 7e-4, "beta1": 0.5}, "discriminator": {"lr": 0.5, "beta1": 0.0}}
    result = search(
        make_job(shards, tmp_path), settings(num_trials=2, num_images=160), ClusterSettings(), earlier=[good]
    )
    second = result.trials[1].adam
    assert second["generator"] == good["generator"]
    assert second["discriminator"]["beta1"] == 0.0
    assert second["discriminator"]["lr"] <= 1e-2, "the space does not hold 0.5, so it was drawn"


POPULATION = {"scheduler": "pbt", "num_images": 640, "exchange_images": 320}


@pytest.fixture(scope="module")
def population(ray_head: str, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return search(make_job(shards, tmp_path_factory.mktemp("population")), settings(**POPULATION), ClusterSettings())


def test_a_population_exchanges_and_ends_in_settings_over_time(population: SearchResult) -> None:
    assert [trial.images_seen for trial in population.trials] == [320] * 4 + [640] * 4
    before, after = population.trials[:4], population.trials[4:]
    changed = [number for number in range(4) if after[number].adam != before[number].adam]
    worst = max(before, key=lambda trial: trial.objective)
    assert changed == [worst.number], "one of four is a quarter"
    assert population.best in after
    assert population.over_time[-1] == {"until": 1.0, "players": population.best.adam}
    assert population.chosen == {"over_time": population.over_time}
    assert draw_trials(population).startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_population_whose_member_was_killed_goes_on_to_the_same_result(
    population: SearchResult, shards: Path, tmp_path: Path
) -> None:
    score = Counting(tmp_path / "calls", fatal=6)
    job = dataclasses.replace(make_job(shards, tmp_path / "work"), score=score)
    one_by_one = settings(**POPULATION, max_concurrent_trials=1)
    with pytest.raises(GanpipeError, match="1 of 4 trials failed.*the same command tries them again"):
        search(job, one_by_one, ClusterSettings(max_failures=0))
    assert score.num_calls() == 8
    result = search(job, one_by_one, ClusterSettings())
    assert score.num_calls() == 9, "members that had finished were trained again"
    assert result == population


class Failing(Counting):
    """Raises an error of the code once it is called for the time numbered `fatal`."""

    def __call__(self, gan: Gan, progress: Progress) -> float:
        with self.calls.open("a") as file:
            file.write("x")
        if self.num_calls() >= self.fatal:
            raise ZeroDivisionError("no images")
        return Score.__call__(self, gan, progress)


@pytest.mark.parametrize("scheduler", ["fifo", pytest.param("asha", marks=pytest.mark.slow)])
def test_a_trial_whose_code_fails_is_not_tried_again_in_the_same_search(
    scheduler: str, ray_head: str, shards: Path, tmp_path: Path
) -> None:
    score = Failing(tmp_path / "calls", fatal=2)
    job = dataclasses.replace(make_job(shards, tmp_path / "work"), score=score)
    one_by_one = settings(num_trials=2, num_images=320, max_concurrent_trials=1, scheduler=scheduler, grace_images=320)
    with pytest.raises(GanpipeError, match=r"1 of 2 trials failed: ZeroDivisionError: no images \(.*; an error of the"):
        search(job, one_by_one, ClusterSettings(max_failures=2))
    assert score.num_calls() == 2
    mended = Failing(tmp_path / "calls", fatal=99)
    result = search(dataclasses.replace(job, score=mended), one_by_one, ClusterSettings(max_failures=2))
    assert [trial.images_seen for trial in result.trials] == [320, 320]
    assert mended.num_calls() == 3, "the trial that had finished was run again"


def test_a_search_that_was_killed_goes_on(ray_head: str, shards: Path, tmp_path: Path) -> None:
    driver = subprocess.Popen([sys.executable, __file__, ray_head, str(shards), str(tmp_path)])
    assert driver.wait(timeout=120) == -signal.SIGKILL
    score = Counting(tmp_path / "calls", fatal=-1)
    assert score.num_calls() == 3
    job = dataclasses.replace(make_job(shards, tmp_path / "work"), score=score)
    result = search(job, settings(max_concurrent_trials=1), ClusterSettings())
    assert len(result.trials) == 4
    assert score.num_calls() == 5, "trials that had finished were scored again"


def killed_search(address: str, shards: Path, folder: Path) -> None:
    """The driver of the test above: it is killed while its third trial is being scored."""
    cluster.connect(address)
    score = Counting(folder / "calls", fatal=3, victim=os.getpid())
    job = dataclasses.replace(make_job(shards, folder / "work"), score=score)
    search(job, settings(max_concurrent_trials=1), ClusterSettings())


def test_the_best_of_equals_is_the_first_and_stopped_trials_do_not_count() -> None:
    def trial(number: int, images_seen: int, objective: float) -> Trial:
        return Trial(number, {"generator": {"lr": 1e-4}}, images_seen, objective)

    result = SearchResult("fid", [trial(0, 100, 5.0), trial(1, 300, 9.0), trial(2, 300, 9.0), trial(3, 300, math.inf)])
    assert result.best.number == 1
    with pytest.raises(Diverged, match="none of 1 trials gave a finite fid"):
        _ = SearchResult("fid", [trial(0, 300, math.inf)]).best


def test_a_player_that_the_gan_does_not_have_is_an_error() -> None:
    values = settings(player_space={"critc": {"lr": {"choice": [1e-4]}}})
    with pytest.raises(GanpipeError, match=r"tune.player_space.critc: .*did you mean 'critic'"):
        space_by_player(values, ["generator", "critic"])
    space = space_by_player(settings(player_space={"critic": {"lr": {"choice": [1e-4]}}}), ["generator", "critic"])
    assert list(space["critic"].distributions()) == ["lr"]
    assert list(space["generator"].distributions()) == ["lr", "beta1"]


if __name__ == "__main__":
    from test_ray_tune import killed_search as main

    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
