"""Alarms: on curves that are made up, and in trainings that are really broken."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganpipe.data import sources
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.settings import DataSettings
from ganpipe.evaluation.quick_fid import QuickFid
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.gans import load
from ganpipe.gans.base import Gan, Progress
from ganpipe.scores import Scored
from ganpipe.training.alarms import Alarm, alarms, as_csv
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import TrainingState
from ganpipe.training.worker import TrainingJob, run_training


def rows(**series: Sequence[float]) -> list[dict[str, float]]:
    """A row per thousand images."""
    num = max(len(values) for values in series.values())
    return [
        {
            "step": i,
            "images_seen": 1000 * (i + 1),
            **{name: values[i] for name, values in series.items() if i < len(values)},
        }
        for i in range(num)
    ]


def told(found: Sequence[Alarm]) -> list[tuple[str, int]]:
    return [(alarm.kind, alarm.images_seen) for alarm in found]


@pytest.mark.parametrize(
    ("recall", "variety", "expected"),
    [
        ([0.1, 0.3, 0.4], [0.5, 0.8, 0.9], []),
        ([0.1, 0.3, 0.02], [0.5, 0.8, 0.9], [("collapse", 3000)]),  # recall falls
        ([0.1, 0.3, 0.02, 0.01, 0.3, 0.01], [1.0] * 6, [("collapse", 3000), ("collapse", 6000)]),  # told once per fall
        ([0.0, 0.04, 0.0], [0.5, 0.8, 0.9], []),  # so little recall says nothing
        ([0.1, 0.1, 0.1], [0.5, 0.8, 0.19], [("collapse", 3000)]),  # variety falls
        ([0.0, 0.0, 0.0], [0.05, 0.3, 0.9], []),  # grey images at first are no collapse
        ([0.0, 0.0, 0.0], [0.05, 0.1, 0.1], [("collapse", 2000)]),  # but at length they are
    ],
)
def test_collapse(recall: list[float], variety: list[float], expected: list[tuple[str, int]]) -> None:
    assert told(alarms(rows(quick_recall=recall, quick_variety=variety), {})) == expected


@pytest.mark.parametrize(
    ("real", "fake", "expected"),
    [
        ([0.99] * 5, [0.01] * 5, [("discriminator_won", 5000)]),
        ([0.99] * 8, [0.01] * 8, [("discriminator_won", 5000)]),
        ([0.99] * 4 + [0.9, 0.99], [0.01] * 6, []),
        ([0.51] * 6, [0.5] * 6, [("discriminator_lost", 5000)]),
        ([0.003] * 6, [0.002] * 6, []),  # a clipped critic's scores are no probabilities
        ([12.0] * 6, [-30.0] * 6, []),
        ([0.8] * 6, [0.2] * 6, []),
    ],
)
def test_a_discriminator_that_has_won_or_lost(
    real: list[float], fake: list[float], expected: list[tuple[str, int]]
) -> None:
    assert told(alarms(rows(score_real=real, score_fake=fake), {})) == expected


def test_memorising_and_patience() -> None:
    assert told(alarms(rows(quick_novelty=[1.4, 0.9, 0.3, 0.2]), {})) == [("memorising", 3000)]
    scores = {1000: 50.0, 2000: 40.0, 3000: 45.0, 4000: 40.0, 5000: 41.0}
    assert alarms([], scores) == []
    assert told(alarms([], scores, 3000)) == [("no_improvement", 5000)]
    (alarm,) = alarms([], scores, 1000)
    assert alarm.images_seen == 3000
    assert "has not improved on 40 after 2,000 images for 1,000 images" in alarm.text


def test_alarms_as_a_table() -> None:
    found = alarms(rows(quick_novelty=[0.1]), {1: 1.0, 2: 2.0}, 1)
    table = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [row["kind"] for row in table] == ["no_improvement", "memorising"]
    assert table[1]["text"] == found[1].text


# -- trainings that are really broken


@pytest.fixture(scope="module")
def ten_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patterns of 4 x 4 black and white fields: no two of them are alike."""
    root = tmp_path_factory.mktemp("ten")
    (root / "images").mkdir()
    random = np.random.default_rng(0)
    for number in range(10):
        pattern = np.kron(random.integers(0, 2, (4, 4)) * 255, np.ones((4, 4))).astype(np.uint8)
        Image.fromarray(pattern).save(root / "images" / f"{number}.png")
    folder = sources.load("folder")
    source = folder(folder.Settings.model_validate({"path": str(root / "images")}))
    write_shards(
        DataSettings(source="folder", image_size=16, validation_fraction=0), source, root / "shards", num_processes=1
    )
    return root / "shards"


QUICK = EvaluateSettings(resize=32, quick={"num_samples": 100, "num_real": 100})  # type: ignore[arg-type]


def train(shards: Path, folder: Path, rates: tuple[float, float], **train: Any) -> tuple[TrainingJob, TrainingState]:
    generator, discriminator = ({"lr": rate, "beta1": 0.5, "beta2": 0.999} for rate in rates)
    small = {"num_latents": 8, "generator_width": 64, "discriminator_width": 64}
    config = load("gan").Config.model_validate(
        {**small, "adam_generator": generator, "adam_discriminator": discriminator}
    )
    values = {"gan": "gan", "batch_size": 16, "log_every": 160, "ema_half_life": 1000, **train}
    settings = TrainSettings.model_validate(values)
    job = TrainingJob("t", "gan", config, settings, str(shards), str(folder), score=QuickFid(str(shards), QUICK))
    return job, run_training(job)


def kinds(state: TrainingState) -> set[str]:
    return {alarm.kind for alarm in alarms(state.curves.rows, state.scores, state.settings.patience_images)}


def test_without_updates_of_the_generator_the_discriminator_wins(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, state = train(shards, tmp_path, (1e-12, 2e-3), num_images=3200, checkpoint_every=1600)
    assert "discriminator_won" in kinds(state)
    said = capsys.readouterr().out
    assert said.count("t: alarm after ") == len(alarms(state.curves.rows, state.scores))
    assert "discriminator_won: the discriminator tells generated from real images without error" in said
    assert said.splitlines()[-1].endswith("]")  # the last progress line names the alarms


def test_at_a_rate_of_0_05_the_generator_collapses(shards: Path, tmp_path: Path) -> None:
    _, state = train(shards, tmp_path, (0.05, 0.05), num_images=3200, checkpoint_every=800)
    assert "collapse" in kinds(state)


def test_ten_images_are_memorised(ten_images: Path, tmp_path: Path) -> None:
    _, state = train(ten_images, tmp_path, (3e-3, 3e-3), num_images=28_000, checkpoint_every=14_000, log_every=14_000)
    assert "memorising" in kinds(state)


def test_a_training_without_improvement_ends_and_stays_ended(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = []
    values = {"num_images": 640, "batch_size": 16, "checkpoint_every": 64, "patience_images": 128, "log_every": 64}
    settings = TrainSettings.model_validate({"gan": "gan", **values})
    config = load("gan").Config.model_validate({"num_latents": 8, "generator_width": 16, "discriminator_width": 8})

    def score(gan: Gan, now: Progress) -> Scored:
        return Scored(10.0 if now.images_seen == 64 else 20.0, {"quick_novelty": 1.0})

    def draw(gan: Gan, now: Progress) -> bytes:
        drawn.append(now.images_seen)
        return b"png"

    job = TrainingJob("t", "gan", config, settings, str(shards), str(tmp_path), score=score, draw=draw)
    assert not job.is_done()
    state = run_training(job)
    assert (state.progress.images_seen, drawn) == (192, [192])
    assert job.is_done()
    assert capsys.readouterr().out.count("no_improvement") >= 1
    again = run_training(job)
    assert again.progress.images_seen == 192
    assert "alarm after" not in capsys.readouterr().out  # an earlier process told it
    patient = dataclasses.replace(job, settings=settings.model_copy(update={"patience_images": None}))
    assert not patient.is_done()
    assert run_training(patient).progress.images_seen == 640
    assert patient.is_done()
