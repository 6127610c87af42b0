"""Learning rates, optimisers and stages over the course of a training, exact after any interruption."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from training_parts import SPEC, blobs, fetch_from, largest_difference, weights_of

from ganpipe.gans.base import Phase, Player, Progress
from ganpipe.gans.gan import GanSettings, OriginalGan
from ganpipe.gans.optimizers import SGD, Adam, RMSprop
from ganpipe.training import search
from ganpipe.training.distributed import World
from ganpipe.training.loop import Loop
from ganpipe.training.schedules import Schedule
from ganpipe.training.search_settings import TuneSettings
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import TrainingState


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {0: 1, 0.3: 1, 1: 1}),
        ({"warmup": 0.2}, {0: 0, 0.1: 0.5, 0.2: 1, 1: 1}),
        ({"kind": "linear", "decay_from": 0.5}, {0: 1, 0.5: 1, 0.75: 0.5, 1: 0}),
        ({"kind": "linear", "final": 0.1}, {0: 1, 0.5: 0.55, 1: 0.1}),
        ({"kind": "cosine"}, {0: 1, 0.25: (1 + math.cos(math.pi / 4)) / 2, 0.5: 0.5, 1: 0}),
        ({"kind": "cosine", "warmup": 0.1, "decay_from": 0.2, "final": 0.5}, {0.05: 0.5, 0.2: 1, 0.6: 0.75, 1: 0.5}),
    ],
)
def test_a_schedule_is_a_function_of_progress(values: dict[str, Any], expected: dict[float, float]) -> None:
    schedule = Schedule.model_validate(values)
    assert {at: schedule.factor(at) for at in expected} == pytest.approx(expected, abs=1e-12)


def test_a_schedule_that_falls_while_it_rises_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup 0\.3 ends after decay_from 0: set decay_from higher"):
        Schedule(kind="linear", warmup=0.3)


class StagedSettings(GanSettings):
    """Three kinds of optimisers: two of the settings' names replace those of the GAN."""

    rmsprop_critic: RMSprop = RMSprop(lr=1e-3)
    sgd_encoder: SGD = SGD(lr=1e-3, momentum=0.9)


class StagedGan(OriginalGan):
    """Three players of which one comes in the second half, and one whose beta2 rises."""

    Config = StagedSettings

    def __init__(self, config: StagedSettings, data: Any) -> None:
        super().__init__(config, data)
        self.encoder = torch.nn.Linear(2, 1)

    def players(self) -> dict[str, Player]:
        config = self.config
        assert isinstance(config, StagedSettings)

        def rising(settings: Any, progress: Progress) -> Adam:
            return Adam(lr=settings.lr, beta1=settings.beta1, beta2=0.9 + 0.09 * progress.fraction)

        return {
            "generator": Player([self.generator], config.adam_generator, averaged=True, over_time=rising),
            "critic": Player([self.discriminator], config.rmsprop_critic),
            "encoder": Player([self.encoder], config.sgd_encoder),
        }

    def stage(self, progress: Progress) -> int:
        return int(progress.fraction * 3)

    def phases(self, progress: Progress) -> list[Phase]:
        found = [Phase("critic", self.discriminator_losses), Phase("generator", self.generator_losses)]
        late = Phase(
            "encoder", lambda batch, progress: {"size": self.encoder(batch["image"].mean((1, 2))[:, :2]).mean()}
        )
        return [*found, late] if progress.fraction >= 0.5 else found


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a training of the staged GAN over 12 steps."""
    monkeypatch.setattr("ganpipe.training.state.load", lambda name: StagedGan)

    def loop(**settings: Any) -> Loop:
        values = {"num_images": 12 * 16, "batch_size": 16, "precision": "fp64", "seed": 3, **settings}
        train = TrainSettings.model_validate(values)
        config = StagedSettings(generator_width=16, discriminator_width=16, num_latents=4)
        state = TrainingState("staged", config, SPEC, train, World())
        return Loop(state, fetch_from(blobs(64), state.dtype), train, World())

    return loop


SCHEDULE = {"kind": "cosine", "warmup": 0.2, "decay_from": 0.3, "final": 0.1}


def test_rates_and_betas_follow_the_schedule(make: Any) -> None:
    loop = make(schedule=SCHEDULE)
    for step in range(12):
        loop.step()
        groups = {name: optimizer.param_groups[0] for name, optimizer in loop.state.optimizers.items()}
        factor = Schedule.model_validate(SCHEDULE).factor(step / 12)
        assert groups["generator"]["lr"] == pytest.approx(2e-4 * factor)
        assert groups["critic"]["lr"] == pytest.approx(1e-3 * factor)
        assert groups["generator"]["betas"] == pytest.approx((0.5, 0.9 + 0.09 * step / 12))
        assert groups["encoder"]["lr"] == (pytest.approx(1e-3 * factor) if step >= 6 else 1e-3)


def test_a_stage_begins_with_fresh_optimisers(make: Any) -> None:
    loop = make()
    updates = []
    for _ in range(12):
        loop.step()
        updates.append([int(max(entry["step"] for entry in loop.state.optimizers[name].state.values()))
                        for name in ("generator", "critic")])  # fmt: skip
    assert updates == [[1 + step % 4] * 2 for step in range(12)]


@pytest.mark.parametrize("stopped_after", range(1, 12))
def test_a_training_killed_at_any_step_of_any_stage_ends_with_the_same_weights(make: Any, stopped_after: int) -> None:
    straight, stopped, resumed = make(schedule=SCHEDULE), make(schedule=SCHEDULE), make(schedule=SCHEDULE)
    straight.run()
    for _ in range(stopped_after):
        stopped.step()
    file = io.BytesIO()
    torch.save(stopped.state.state_dict(), file)
    file.seek(0)
    resumed.state.load_state_dict(torch.load(file, weights_only=True))
    resumed.run()
    assert resumed.state.progress == straight.state.progress
    assert largest_difference(weights_of(resumed), weights_of(straight)) == 0


def test_the_search_takes_of_each_optimiser_what_it_has(make: Any) -> None:
    config = StagedSettings()
    space = search.search_space(config, TuneSettings())
    assert {name for name in space.distributions if not name.startswith("discriminator")} == {
        "generator.lr", "generator.beta1", "generator.beta2", "critic.lr", "encoder.lr",
    }  # fmt: skip
    assert space.first["critic.lr"] == space.first["encoder.lr"] == 1e-3
    changed = config.with_optimizers({"critic": {"lr": 0.5}, "generator": {"beta1": 0.25}})
    assert isinstance(changed, StagedSettings)
    assert (changed.rmsprop_critic.lr, changed.adam_generator.beta1, changed.adam_generator.lr) == (0.5, 0.25, 2e-4)
    with pytest.raises(Exception, match=r"critic\.beta1: unknown key; did you mean 'alpha'|critic\.beta1: unknown key"):
        config.with_optimizers({"critic": {"beta1": 0.5}})
