"""Moving digits: films of a function of the seed, whose digits bounce as the settings say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.loading.opening import open_dataset
from ganpipe.data.settings import DataSettings
from ganpipe.data.sources.moving_digits import MovingDigits, MovingDigitsSettings, places_of_digit
from ganpipe.errors import GanpipeError


@pytest.fixture
def source_of(tmp_path: Path, write_idx: Callable[..., np.ndarray]) -> Callable[..., MovingDigits]:
    write_idx(tmp_path / "mnist", 20)

    def make(**values: object) -> MovingDigits:
        settings = {"path": str(tmp_path / "mnist"), "num_films": 12, "num_past": 3, "num_future": 4, **values}
        return MovingDigits(MovingDigitsSettings.model_validate(settings))

    return make


def test_a_film_is_a_function_of_seed_and_number(source_of: Callable[..., MovingDigits]) -> None:
    def contents(**values: object) -> list[list[bytes]]:
        return [
            [frame.read() for name in ("past", "future") for frame in item.references(name)]
            for item in source_of(**values).items()
        ]

    first, again, other, more = contents(), contents(), contents(seed=1), contents(num_films=15)
    assert first == again
    assert more[:12] == first
    assert first != other
    assert len({b"".join(film) for film in first}) == 12
    assert all(len(film) == 7 for film in first)


def test_films_become_frames(tmp_path: Path, source_of: Callable[..., MovingDigits]) -> None:
    settings = DataSettings.model_validate(
        {"source": "moving_digits", "image_size": 32, "channels": 1, "validation_fraction": 0.25}
    )
    manifest = write_shards(settings, source_of(), tmp_path / "shards")
    assert manifest.main == "future"
    dataset = open_dataset(tmp_path / "shards", "train")
    rows = dataset.rows(np.arange(len(dataset)))
    assert rows["past"].shape[1:] == (3, 1, 32, 32)
    assert rows["future"].shape[1:] == (4, 1, 32, 32)
    assert len(dataset) + len(open_dataset(tmp_path / "shards", "validation")) == 12


@pytest.mark.parametrize("random_turns", [False, True])
def test_a_digit_moves_evenly_and_stays_inside(random_turns: bool) -> None:
    random = np.random.default_rng(0)
    places = places_of_digit(random, 400, room=36.0, speed=3.6, random_turns=random_turns)
    assert places.min() >= 0
    assert places.max() <= 36
    steps = np.diff(places, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    inside = (places[:-1] > 4).all(1) & (places[:-1] < 32).all(1)
    assert lengths[inside] == pytest.approx(3.6)
    directions = np.round(np.arctan2(*steps[inside].T), 6)
    # As light leaves a mirror there are four directions; with random turns each border gives another one.
    assert (len(set(directions)) <= 4) != random_turns


def test_random_turns_leave_the_future_open() -> None:
    """Two films that begin alike part at the border, where the generators differ."""

    def film(turns: bool, seed: int) -> np.ndarray:
        class Steered:
            """The first draws of one generator, the later ones of another."""

            def __init__(self) -> None:
                self._first, self._later, self._count = np.random.default_rng(5), np.random.default_rng(seed), 0

            def uniform(self, *arguments: object) -> object:
                self._count += 1
                return (self._first if self._count <= 2 else self._later).uniform(*arguments)  # type: ignore[call-overload]

        return places_of_digit(Steered(), 60, 20.0, 2.0, turns)  # type: ignore[arg-type]

    assert (film(False, 1) == film(False, 2)).all()
    first, second = film(True, 1), film(True, 2)
    apart = np.flatnonzero((first != second).any(1))
    assert 0 < apart[0] < 30


def test_a_canvas_that_is_too_small_is_an_error(
    tmp_path: Path, write_idx: Callable[..., np.ndarray], source_of: Callable[..., MovingDigits]
) -> None:
    with pytest.raises(Exception, match="canvas"):
        source_of(canvas=20)
    source = source_of(canvas=32)
    assert len(list(source.items())) == 12
    with pytest.raises(GanpipeError, match=r"sources.mnist.path: .*missing is not a folder"):
        MovingDigits(MovingDigitsSettings(path=str(tmp_path / "missing"))).check()


def test_the_fingerprint_follows_settings(source_of: Callable[..., MovingDigits]) -> None:
    assert source_of().fingerprint() == source_of().fingerprint()
    assert source_of().fingerprint() != source_of(speed=2.0).fingerprint()
