"""The tables of docs/performance.md are what was measured, and a goal is met only where it is."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import __main__ as bench
from benchmarks import distilled, few, ranks, recipes
from benchmarks.ceiling import Ceiling
from benchmarks.kept import Kept
from benchmarks.measure import Row, alternate, ratio
from benchmarks.textbook import Textbook
from benchmarks.training import CASES
from ganpipe.gans import load
from ganpipe.gans.base import DataSpec


@pytest.mark.parametrize(
    ("value", "goal", "met"),
    [(2.5, "≥ 2.5", True), (2.49, "≥ 2.5", False), (1.0, "≤ 1", True), (1.01, "≤ 1", False), (3.0, "", None)],
)
def test_a_goal_is_met_where_the_value_is_on_its_side(value: float, goal: str, met: bool | None) -> None:
    assert Row("something", value, "x", goal).met is met


def test_things_take_turns_and_the_first_turn_does_not_count() -> None:
    calls: list[str] = []

    def thing(name: str, values: list[float]) -> float:
        calls.append(name)
        return values[(len(calls) - 1) // 2]

    found = alternate({"a": lambda: thing("a", [9, 2, 8]), "b": lambda: thing("b", [9, 1, 2])}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert found == {"a": [2, 8], "b": [1, 2]}
    assert ratio(found, "a", "b") == 3, "the median of the ratios within each round"


@pytest.mark.parametrize("gan", CASES)
def test_what_training_is_compared_with_takes_a_step(gan: str, tmp_path: Path) -> None:
    """The programs beside `ganpipe train` know its networks by name: they must not fall behind its names."""
    data, config = DataSpec.images(32, 1), load(gan).Config()
    images = torch.rand(8, 1, 32, 32) * 2 - 1
    ceiling = Ceiling(gan, config, data, images, batch_size=4, bf16=False)
    assert ceiling.step() in (4, 5 * 4)
    Image.new("L", (32, 32)).save(tmp_path / "0.png")
    textbook = Textbook(gan, config, data, tmp_path, batch_size=4, log=io.StringIO())
    textbook.step(images[:4])
    assert textbook.num_steps == 1


def test_the_page_shows_the_results_that_are_kept() -> None:
    results = json.loads(bench.RESULTS.read_text(encoding="utf-8"))
    assert results
    shown = bench.PAGE.read_text(encoding="utf-8").partition(bench.BEGIN)[2].partition(bench.END)[0]
    assert shown.strip() == bench.table(results).strip(), "run `make bench`, or some sections of it"


@pytest.mark.parametrize("kept", [distilled.KEPT, few.KEPT, ranks.KEPT, recipes.KEPT], ids=lambda kept: kept.name)
def test_a_page_s_table_is_that_of_the_kept_rows(kept: Kept) -> None:
    assert kept.rows()
    assert kept.shown() == f"\n{kept.table(kept.rows())}\n"
