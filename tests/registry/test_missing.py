"""Whatever may be missing in MLflow is a sentence in every command: real databases and files, damaged by hand."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import damaged_registry as damage
import pytest
from damaged_registry import EXPERIMENT, MODEL, Damage, Registry, copied, make_checkout

from ganpipe.cli import main
from ganpipe.errors import GanpipeError
from ganpipe.serving.follower import Follower, Source
from ganpipe.tracking.runs import Tracker

Capture = pytest.CaptureFixture[str]
GONE = "models:/ganpipe-mnist/1: its files are not in /"
NO_NUMBERS = "version 1 of ganpipe-mnist has no numbers in its tag 'ganpipe.metrics'"
NO_TRAIL = "that held the alias history of ganpipe-mnist is gone from MLflow, and with it the moves until now"
NO_MODEL = "has no registered model 'ganpipe-mnist'; `make run` makes the first one; where it has nothing to do"
Row = tuple[Damage, str, int, str]
TABLE: list[Row] = [
    (damage.run_deleted, "summary", 0, "model    models:/ganpipe-mnist/1 @champion\n"),
    (damage.run_collected, "summary", 0, "MLflow   no longer has the run of the training; the model version is still"),
    (damage.run_collected, "compare 1 2", 0, "models:/ganpipe-mnist/1  models:/ganpipe-mnist/2  better"),
    (
        damage.experiment_deleted,
        "promote --version 2 --force --reason x",
        2,
        "was deleted; restore it: MLFLOW_TRACKING",
    ),
    (damage.experiment_collected, "models --history", 2, NO_TRAIL),
    (damage.experiment_collected, "promote --version 2 --force --reason x", 0, "champion moved from version 1 to vers"),
    (damage.model_files_removed, "sample", 2, GONE),
    (damage.model_files_removed, "verify", 1, f", here {GONE}"),
    (damage.environment_overwritten, "verify", 1, "here MLflow has no readable environment.json of the training's run"),
    (damage.description_removed, "sample", 2, "models:/ganpipe-mnist/1: no package of ganpipe: it has no model.json"),
    (damage.model_deleted, "models", 2, NO_MODEL),
    (damage.foreign_champion, "sample", 2, "models:/ganpipe-mnist/3: its files are not in /"),
    (damage.tags_overwritten, "models", 0, "2        @challenger  50"),
    (damage.tags_overwritten, "promote", 1, f"Not comparable: {NO_NUMBERS}"),
    (damage.tags_of_another_kind, "check", 0, f"warning: register: not comparable: {NO_NUMBERS}"),
    (damage.trail_tag_overwritten, "rollback", 2, "nothing to go back to: version 1 is the champion"),
    (damage.trail_collected, "models --history", 2, NO_TRAIL),
]
"""What happened, the command, its exit code, and what it says."""
MORE: list[Row] = [
    (damage.run_deleted, "report", 0, "page not logged: the experiment 'ganpipe' has no run of this training"),
    (damage.run_collected, "summary --json", 0, '"links": {"MLflow model version": '),
    (damage.run_collected, "verify", 1, "unknown  code: registered (MLflow does not tell), here the training's run"),
    (damage.experiment_collected, "models --json", 0, NO_TRAIL),
    (damage.model_files_removed, "compare 1 2", 2, GONE),
    (damage.all_files_removed, "sample --model models:/ganpipe-mnist/1", 2, GONE),
    (damage.environment_overwritten, "report", 0, "report.html of the training's run"),
    (damage.description_removed, "check", 0, "has no readable files in MLflow, so it cannot be measured again"),
    (damage.logged_models_collected, "sample", 2, GONE),
    (damage.champion_deleted, "sample", 2, "ganpipe-mnist has no champion: its newest version is 2"),
    (damage.model_renamed, "sample", 2, "has no registered model 'ganpipe-mnist'; valid names: another"),
    (damage.tags_overwritten, "report", 0, "report.html of the training's run"),
    (damage.tags_removed, "verify", 2, NO_NUMBERS),
    (damage.trail_tag_overwritten, "models", 0, "2        @challenger  50"),
    (damage.trail_collected, "promote --version 2 --force --reason x", 0, "champion moved from version 1 to version 2"),
]
"""The same, in the slow tests."""
DAMAGES = [value for value in vars(damage).values() if getattr(value, "__annotations__", {}).get("store") == "Registry"]
assert len(DAMAGES) >= 27, "kinds of damage that these tests do not see"
COMMANDS = (
    "models",
    "models --json",
    "models --history",
    "summary",
    "compare 1 2 --num 4",
    "sample --num 4",
    "verify",
    "report",
    "check",
    "promote",
    "promote --version 2 --force --reason x",
    "register",
    "rollback",
)
"""The last four may move aliases."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("original") / "checkout"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        make_checkout(root)
    return root


@pytest.fixture
def checkout(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GANPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(copied(original, tmp_path / "checkout"))
    return tmp_path / "checkout"


@pytest.mark.parametrize(
    ("done", "command", "code", "says"),
    [*TABLE, *(pytest.param(*row, marks=pytest.mark.slow) for row in MORE)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_sentence(checkout: Path, capsys: Capture, done: Damage, command: str, code: int, says: str) -> None:
    done(Registry(checkout))
    capsys.readouterr()
    found = main(command.split())
    told = capsys.readouterr()
    assert (found, says in told.out + told.err) == (code, True), told
    assert len(told.err.strip().splitlines()) <= 1, told.err


def test_the_page_of_a_version_without_files_says_so(checkout: Path) -> None:
    damage.model_files_removed(Registry(checkout))
    follower = Follower(Tracker.at(checkout, EXPERIMENT), Source.of(f"models:/{MODEL}@champion"), poll_seconds=60)
    follower.start()
    follower.stop()
    assert follower.state.failing is not None
    assert follower.state.failing.what.startswith(f"version 1 of ganpipe-mnist: {GONE}")


def test_the_page_of_no_model_says_how_to_make_one(checkout: Path) -> None:
    damage.model_deleted(Registry(checkout))
    with pytest.raises(
        GanpipeError, match="no registered model 'ganpipe-mnist' .*--force --single-item register` does"
    ):
        Follower(Tracker.at(checkout, EXPERIMENT), Source.of(f"models:/{MODEL}@champion"), poll_seconds=60).start()


def test_a_champion_without_files_does_not_stop_the_next_one(checkout: Path, capsys: Capture) -> None:
    """Its numbers are of another protocol, so it would have to be measured again."""
    store = Registry(checkout)
    store.client.set_model_version_tag(MODEL, "1", "ganpipe.protocol", "another")
    damage.model_files_removed(store)
    assert main(["register"]) == 0
    said = capsys.readouterr().out
    assert f"  Not comparable: {GONE}" in said
    assert "models:/ganpipe-mnist/3 registered; aliases: challenger" in said
    assert main(["promote", "--version", "3", "--force", "--reason", "as it says"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("done", DAMAGES, ids=lambda value: value.__name__)
def test_no_traceback_in_any_command(checkout: Path, capsys: Capture, done: Damage) -> None:
    done(Registry(checkout))
    for command in COMMANDS:
        capsys.readouterr()
        code = main(command.split())  # an error that is no sentence ends the test
        lines = capsys.readouterr().err.strip().splitlines()
        assert code in (0, 1, 2), (command, code, lines)
        if code == 2:
            assert lines[-1].startswith("error: "), (command, lines)


@pytest.mark.slow
def test_a_database_that_is_empty_or_another_mlflows(checkout: Path) -> None:
    (checkout / "mlflow.db").write_bytes(b"")
    assert NO_MODEL in ganpipe("models", code=2)
    import sqlite3

    with sqlite3.connect(checkout / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'another'")
    database.close()
    assert f"{checkout / 'mlflow.db'}: MLflow cannot use this database: " in ganpipe("models", code=2)


@pytest.mark.slow
def test_what_a_deleted_trail_and_experiment_advise_helps(checkout: Path) -> None:
    damage.experiment_deleted(Registry(checkout))
    said = ganpipe("register", code=2)
    restore(said.partition("restore it (")[2].partition(")")[0])
    assert "champion moved" in ganpipe("promote", "--version", "2", "--force", "--reason", "x", code=0)
    Registry(checkout).client.delete_run(Registry(checkout).trail_id)
    restore(ganpipe("rollback", code=2).partition("restore it: ")[2].strip())
    assert "champion moved from version 2 to version 1" in ganpipe("rollback", code=0)


def ganpipe(*arguments: str, code: int) -> str:
    """What a command prints, as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "ganpipe", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def restore(line: str) -> None:
    """Run a line that a message gives, as a person would: NAME=VALUE mlflow …"""
    setting, *command = shlex.split(line)
    name, _, value = setting.partition("=")
    assert (name, command[0]) == ("MLFLOW_TRACKING_URI", "mlflow")
    variables = {**os.environ, name: value}
    subprocess.run([sys.executable, "-m", *command], env=variables, timeout=300, check=True)
