"""The table of trials, their figure and importances, and `ganpipe trials`; `test_ray_tune.py` runs searches."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from ganpipe.commands import trials as command
from ganpipe.errors import GanpipeError
from ganpipe.stages import tune
from ganpipe.training.search_figure import draw_trials, importances
from ganpipe.training.trials import SearchResult, Trial, by_player, flat, read_table

ROOT = Path(__file__).parents[2]


def result(num_trials: int) -> SearchResult:
    """The generator's rate decides, nearly alone."""
    random = np.random.default_rng(0)
    trials = []
    for number in range(num_trials):
        rate, beta = 10 ** random.uniform(-4, -2), random.uniform(0, 0.7)
        adam = {"generator": {"lr": float(rate), "beta1": float(beta)}}
        trials.append(Trial(number, adam, 100, float(abs(math.log10(rate) + 3) + 0.01 * random.random())))
    return SearchResult("quick_fid_x", trials)


def test_a_table_is_read_as_it_was_written() -> None:
    found = result(3)
    assert read_table(found.table()) == found.trials
    assert by_player(flat(found.trials[0].adam)) == found.trials[0].adam
    lost = Trial(3, found.trials[0].adam, 5, math.inf)
    assert Trial.from_json(json.loads(json.dumps(lost.to_json(), allow_nan=False))) == lost
    for text in ("", "a,b\n1,2\n", "trial,images_seen\n"):
        with pytest.raises(ValueError, match="expected a table of trials"):
            read_table(text)


def test_trials_that_were_kept_give_the_same_bytes() -> None:
    """A search with more trials begins with those of the last one, from a JSON file whose keys are sorted."""
    made = result(12)
    kept = [Trial.from_json(json.loads(json.dumps(trial.to_json(), sort_keys=True))) for trial in made.trials]
    assert list(kept[0].adam["generator"]) != list(made.trials[0].adam["generator"])
    taken_up = SearchResult(made.objective, [*kept[:6], *made.trials[6:]])
    assert taken_up.table() == made.table()
    assert draw_trials(taken_up) == draw_trials(made)


def test_the_setting_that_decides_is_the_most_important() -> None:
    found = importances(result(40))
    assert next(iter(found)) == "generator.lr"
    assert found["generator.lr"] > 0.7
    assert sum(found.values()) == pytest.approx(1)
    assert importances(result(40)) == found
    assert importances(result(9)) == {}


def test_the_figure_is_the_same_for_the_same_trials() -> None:
    assert draw_trials(result(12)) == draw_trials(result(12)) != draw_trials(result(11))
    assert draw_trials(result(3)).startswith(b"\x89PNG")
    assert draw_trials(None).startswith(b"\x89PNG")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    folder = tmp_path / "artifacts" / "tune"
    folder.mkdir(parents=True)
    (folder / "trials.csv").write_text(result(3).table())
    (folder / "best.json").write_text(json.dumps(result(3).chosen))
    return folder


def test_trials_are_listed_best_first(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    header, first, *others = capsys.readouterr().out.splitlines()
    assert header.split() == ["trial", "images", "quick_fid_x", "generator.beta1", "generator.lr"]
    assert first.split()[:2] == ["*", str(result(3).best.number)]
    assert len(others) == 2
    assert command.main(["--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["chosen"] for one in shown] == [True, False, False]
    parts = [{"until": 0.5, "players": {}}, {"until": 1.0, "players": result(3).best.adam}]
    (checkout / "best.json").write_text(json.dumps({"over_time": parts}))
    assert command.main([]) == 0
    assert "the training follows 2 parts" in capsys.readouterr().out
    (checkout / "best.json").write_text("{}")
    with pytest.raises(GanpipeError, match="there was no search"):
        command.main([])


def test_an_earlier_search_is_read_best_first(checkout: Path) -> None:
    found = tune.earlier_settings("artifacts/tune/trials.csv")
    assert found[0] == result(3).best.adam
    assert len(found) == 3
    assert tune.earlier_settings(None) == []
    with pytest.raises(GanpipeError, match=r"tune.start_from: got 'no.csv'; there is no such file"):
        tune.earlier_settings("no.csv")
    (checkout / "other.csv").write_text("a,b\n")
    with pytest.raises(GanpipeError, match="other.csv: expected a table of trials"):
        tune.earlier_settings("artifacts/tune/other.csv")
