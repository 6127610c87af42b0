"""Population based training: who goes on from whom, with which settings. `test_ray_tune.py` runs it on Ray."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from training_parts import SMALL

from ganpipe.commands import pin
from ganpipe.errors import GanpipeError
from ganpipe.gans import load
from ganpipe.gans.base import DataSpec, Progress
from ganpipe.params import load_params
from ganpipe.section import parse
from ganpipe.stages.train import searched
from ganpipe.training.population import Member, explore, first_generation, next_generation, over_time
from ganpipe.training.search_settings import Distribution, TuneSettings
from ganpipe.training.search_space import draw, search_space
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import TrainingState

ROOT = Path(__file__).parents[2]
SETTINGS = TuneSettings.model_validate({"scheduler": "pbt", "num_trials": 8, "num_images": 100, "exchange_images": 50})
SPACE = search_space(load("gan").Config(), SETTINGS)


def test_the_first_generation_is_a_function_of_the_seed() -> None:
    members = first_generation(SPACE, SETTINGS)
    assert members == first_generation(SPACE, SETTINGS)
    assert members != first_generation(SPACE, SETTINGS.model_copy(update={"seed": 1}))
    assert members[0].settings["generator.lr"] == load("gan").Config().adam_generator.lr
    assert all(SPACE.distributions[key].holds(value) for one in members for key, value in one.settings.items())
    assert len({one.settings["generator.lr"] for one in members}) == 8
    assert [one.parent for one in members] == list(range(8))


def test_the_worst_quarter_goes_on_from_the_best() -> None:
    members = first_generation(SPACE, SETTINGS)
    scores = [5.0, 1.0, 8.0, 3.0, 7.0, 2.0, math.inf, 4.0]
    found = next_generation(members, scores, SPACE, seed=0, generation=1)
    assert found == next_generation(members, scores, SPACE, seed=0, generation=1)
    moved = {number: one.parent for number, one in enumerate(found) if one.parent != number}
    assert set(moved) == {2, 6}
    assert set(moved.values()) <= {1, 5}
    for number, one in enumerate(found):
        if number in moved:
            assert one.settings != members[one.parent].settings
            assert all(SPACE.distributions[key].holds(value) for key, value in one.settings.items())
        else:
            assert one == members[number]
    assert found != next_generation(members, scores, SPACE, seed=0, generation=2)


def test_two_members_exchange_and_whoever_diverged_is_replaced() -> None:
    members = first_generation(SPACE, SETTINGS)[:2]
    assert [one.parent for one in next_generation(members, [2.0, 1.0], SPACE, 0, 1)] == [1, 1]
    all_but_one = next_generation(first_generation(SPACE, SETTINGS), [math.inf] * 7 + [1.0], SPACE, 0, 1)
    assert [one.parent for one in all_but_one] == [7] * 8
    lost = next_generation(members, [math.inf, math.inf], SPACE, 0, 1)
    assert [one.parent for one in lost] == [0, 1]


def test_settings_change_by_a_fifth_or_are_drawn_anew() -> None:
    space = search_space(load("gan").Config(), SETTINGS)
    before = {"generator.lr": 2e-4}
    values = [explore(before, space, np.random.default_rng(seed))["generator.lr"] for seed in range(400)]
    near = [value for value in values if value == pytest.approx(1.6e-4) or value == pytest.approx(2.4e-4)]
    assert 0.65 < len(near) / 400 < 0.85
    assert min(values) >= 1e-4
    assert 1e-3 < max(values) <= 1e-2
    beta2 = {
        explore({"generator.beta2": 0.99}, space, np.random.default_rng(seed))["generator.beta2"] for seed in range(50)
    }
    assert beta2 == {0.9, 0.99, 0.999}


def test_draws_follow_their_distribution() -> None:
    random = np.random.default_rng(0)
    logs = [math.log10(draw(Distribution(log_uniform=(1e-4, 1e-2)), random)) for _ in range(2000)]
    assert np.mean(logs) == pytest.approx(-3, abs=0.05)
    assert np.mean([draw(Distribution(uniform=(0.0, 0.7)), random) for _ in range(2000)]) == pytest.approx(
        0.35, abs=0.02
    )


def test_the_line_of_the_best_is_its_settings_over_time() -> None:
    a, b, c = ({"generator.lr": rate} for rate in (1e-4, 2e-4, 3e-4))
    generations = [[Member(a, 0), Member(b, 1)], [Member(a, 0), Member(c, 0)], [Member(a, 0), Member(c, 1)]]
    lengths = SETTINGS.model_copy(update={"num_images": 8000, "exchange_images": 3000})
    assert over_time(generations, 1, lengths) == [
        {"until": 0.375, "players": {"generator": {"lr": 1e-4}}},
        {"until": 1.0, "players": {"generator": {"lr": 3e-4}}},
    ]
    assert over_time(generations, 0, lengths) == [{"until": 1.0, "players": {"generator": {"lr": 1e-4}}}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"searcher": "tpe"}, "draws its settings itself: expected searcher random, got tpe"),
        ({"num_trials": 1}, "expected num_trials of 2 or more"),
        ({"exchange_images": 100}, "expected exchange_images below num_images, which is 100"),
    ],
)
def test_a_population_that_cannot_exchange_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(GanpipeError, match=message):
        parse(TuneSettings, {**SETTINGS.model_dump(exclude_defaults=True), "scheduler": "pbt", **values}, "tune")


# -- settings over time


PARTS = [
    {"until": 0.25, "players": {"generator": {"lr": 1e-3, "beta1": 0.1}}},
    {"until": 1.0, "players": {"generator": {"lr": 1e-4}, "discriminator": {"lr": 5e-4}}},
]


def test_a_training_follows_settings_over_time() -> None:
    settings = TrainSettings.model_validate({"gan": "gan", "num_images": 100, "over_time": PARTS})
    config = load("gan").Config.model_validate(SMALL["gan"])
    state = TrainingState("gan", config, DataSpec.images(16, 1, 2), settings)
    found = []
    for images_seen in (0, 24, 25, 99, 100):
        state.progress = Progress(images_seen, 100)
        (group,) = state.optimizer("generator").param_groups
        (other,) = state.optimizer("discriminator").param_groups
        found.append((group["lr"], group["betas"], other["lr"]))
    own = config.adam_discriminator.lr, config.adam_generator.beta1
    assert found[0] == found[1] == (1e-3, (0.1, 0.999), own[0])
    assert found[2] == found[3] == found[4] == (1e-4, (own[1], 0.999), 5e-4)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([PARTS[0]], r"the last at 1; they end at \[0.25\]"),
        (PARTS[::-1], "expected parts that end one after the other"),
        ([{"until": 1.5, "players": {}}], "less than or equal to 1"),
    ],
)
def test_parts_that_do_not_fill_a_training_are_refused(parts: list[object], message: str) -> None:
    with pytest.raises(GanpipeError, match=message):
        parse(TrainSettings, {"over_time": parts}, "train")


def test_pin_writes_settings_over_time_into_params_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(settings.replace("num_trials: 0", "num_trials: 4"))
    (tmp_path / "artifacts" / "tune").mkdir(parents=True)
    (tmp_path / "artifacts" / "tune" / "best.json").write_text(json.dumps({"over_time": PARTS}))
    before, config = searched(load_params())
    assert [part.until for part in before.train.over_time] == [0.25, 1.0]
    assert config == load_params().gan_config
    assert pin.main([]) == 0
    assert "train.over_time: 2 parts" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "params.yaml").read_text())["tune"]["num_trials"] == 0
    (tmp_path / "artifacts" / "tune" / "best.json").write_text("{}")  # as `tune` leaves it from now on
    assert searched(load_params())[0].train == before.train
    (tmp_path / "artifacts" / "tune" / "best.json").write_text(json.dumps({"critic": {"lr": 1e-3}}))
    (tmp_path / "params.yaml").write_text((tmp_path / "params.yaml").read_text().replace("gan: ebgan", "gan: wgan_gp"))
    later, config = searched(load_params())
    assert later.train.over_time == ()
    assert config.optimizer_of("critic").lr == 1e-3
