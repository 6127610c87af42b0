"""A checkout that was moved or copied: its models and runs are found where it is now, and the other place is left
alone."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service import utils
from registry_parts import NAME, Desk, build, tracker_in

from ganpipe.cli import main
from ganpipe.errors import GanpipeError
from ganpipe.packaging.package import download_package
from ganpipe.tracking.runs import Tracker

LOAD = f"""
import mlflow, pandas as pd
mlflow.set_tracking_uri("sqlite:///mlflow.db")
model = mlflow.pyfunc.load_model("models:/{NAME}@champion")
print(model.predict(pd.DataFrame({{"seed": [1, 2, 3]}})).shape)
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a run that has a file, and a champion; nothing moves it."""
    root = tmp_path_factory.mktemp("somewhere") / "check out"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracker = tracker_in(root)
        desk = Desk(tracker, build(root / "built"))
        desk.register(40.0)
        with tracker.run("train", "key") as run:
            run.log_text("1", "curves.csv")
    return root


@pytest.fixture
def checkout(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same checkout, at a place from which it can be moved."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(utils, "_artifact_repos_cache", OrderedDict())  # as in a process of its own
    root = Path(shutil.copytree(original, tmp_path / "here"))
    Tracker.at(root, NAME).client()
    return root


def addresses(root: Path) -> set[str]:
    """Every address of files in the database, without what follows the checkout's folder of files."""
    columns = {"experiments": "artifact_location", "runs": "artifact_uri", "logged_models": "artifact_location",
               "model_versions": "storage_location"}  # fmt: skip
    with sqlite3.connect(root / "mlflow.db") as database:
        found = [
            row[0] for table, column in columns.items() for row in database.execute(f"SELECT {column} FROM {table}")
        ]
    return {address.partition("/mlartifacts")[0].partition("/mlruns")[0] for address in found}


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_moved_checkout_finds_its_models_and_runs(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    place = tmp_path / "a new" / "pläce"
    place.parent.mkdir()
    checkout.rename(place)
    (place / "params.yaml").write_text(f"register: {{model_name: {NAME}}}\n", encoding="utf-8")
    monkeypatch.chdir(place)
    with caplog.at_level(logging.WARNING):
        assert main(["sample", "--num", "4", "--out", str(tmp_path / "grid.png")]) == 0, capsys.readouterr().err
    assert f"this checkout was at {checkout}; " in caplog.text
    assert addresses(place) == {place.as_uri()}
    loaded = subprocess.run([sys.executable, "-c", LOAD], cwd=place, capture_output=True, text=True, check=True)
    assert loaded.stdout == "(3, 16, 16, 1)\n"
    tracker = Tracker.at(place, NAME)
    with tracker.run("train", "key") as run:  # the same run goes on
        assert run.existed_before
        run.log_text("2", "more.csv")
    assert (place / "mlartifacts" / run.run_id / "artifacts" / "curves.csv").read_text() == "1"
    assert (place / "mlartifacts" / run.run_id / "artifacts" / "more.csv").read_text() == "2"
    assert not checkout.exists()
    caplog.clear()
    tracker.client()
    assert caplog.text == "", "it is said once"


def test_a_copy_does_not_write_into_the_other(checkout: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkout, tmp_path / "copy"))
    before = files(checkout)
    tracker = Tracker.at(copy, NAME)
    for key in ("key", "another"):  # a run that was copied goes on, and one is new
        with tracker.run("train", key) as run:
            run.log_text("2", "more.csv")
        assert (copy / "mlartifacts" / run.run_id / "artifacts" / "more.csv").read_text() == "2"
    Desk(tracker, build(tmp_path / "better", seed=1)).register(30.0)
    assert addresses(copy) == {copy.as_uri()}
    assert files(checkout) == before


def test_a_copy_without_a_single_file_is_its_own_place_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first = Tracker.at(tmp_path / "first", NAME)
    first.experiment_id(first.client())
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "first" / "mlflow.db", tmp_path / "copy")
    with Tracker.at(tmp_path / "copy", NAME).run("train", "key") as run:
        run.log_text("2", "more.csv")
    assert (tmp_path / "copy" / "mlartifacts" / run.run_id / "artifacts" / "more.csv").exists()
    assert not (tmp_path / "first" / "mlartifacts").exists()


def test_files_that_are_only_at_the_former_place_are_still_read_there(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    shutil.copy(checkout / "mlflow.db", tmp_path / "copy")  # the database alone
    tracker = Tracker.at(tmp_path / "copy", NAME)
    version = tracker.client().get_model_version(NAME, "1")
    assert (download_package(tracker, version, tmp_path / "got") / "generator.safetensors").exists()
    shutil.rmtree(checkout / "mlartifacts")
    with pytest.raises(GanpipeError, match=f"models:/{NAME}/1: its files are not in {checkout}/mlartifacts/models/m-"):
        download_package(tracker, version, tmp_path / "again")


def test_a_database_of_an_earlier_ganpipe_is_put_right_by_what_lies_here(checkout: Path, tmp_path: Path) -> None:
    with sqlite3.connect(checkout / "mlflow.db") as database:
        database.execute("DELETE FROM experiment_tags")
    moved = checkout.rename(tmp_path / "moved")
    Tracker.at(moved, NAME).client()
    assert addresses(moved) == {moved.as_uri()}


def test_a_folder_that_somebody_chose_stays(tmp_path: Path, checkout: Path) -> None:
    tracker = Tracker.at(checkout, NAME)
    disk = tmp_path / "disk" / "mlartifacts"
    chosen = tracker.client().create_experiment("chosen", artifact_location=disk.as_uri())
    moved = checkout.rename(tmp_path / "moved")
    client = Tracker.at(moved, NAME).client()
    assert client.get_experiment(chosen).artifact_location == disk.as_uri()
    assert client.get_experiment_by_name(NAME).artifact_location == (moved / "mlartifacts").as_uri()


def test_a_database_that_several_checkouts_share_stays(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{checkout}/mlflow.db")
    Tracker.at(tmp_path / "another", NAME).client()
    assert addresses(checkout) == {checkout.as_uri()}


def test_a_checkout_with_two_names_at_once_keeps_the_one_it_has(checkout: Path, tmp_path: Path) -> None:
    """As a mount gives it a second one: both names work, and each process would change what the other has."""
    (tmp_path / "second").mkdir()
    os.link(checkout / "mlflow.db", tmp_path / "second" / "mlflow.db")
    Tracker.at(tmp_path / "second", NAME).client()
    assert addresses(checkout) == {checkout.as_uri()}


def test_records_that_wait_for_mlflow_keep_their_files(checkout: Path, tmp_path: Path) -> None:
    tracker = Tracker.at(checkout, NAME)
    with tracker.run("train", "key") as run:
        run_id = run.run_id
    script = (
        "import os, sys; from pathlib import Path; from ganpipe.tracking.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), sys.argv[2]); Path('late.csv').write_text('3')\n"
        "spool.append({'kind': 'artifact', 'folder': ''}, Path('late.csv')); os._exit(9)  # as SIGKILL does"
    )
    subprocess.run([sys.executable, "-c", script, tracker.spool_dir, run_id], cwd=tmp_path, check=False)
    moved = checkout.rename(tmp_path / "moved")
    Tracker.at(moved, NAME).attach(run_id).close()
    assert (moved / "mlartifacts" / run_id / "artifacts" / "late.csv").read_text() == "3"


def test_mlflows_own_experiment_follows_too(checkout: Path, tmp_path: Path) -> None:
    moved = checkout.rename(tmp_path / "moved")
    client = Tracker.at(moved, NAME).client()
    assert client.get_experiment("0").artifact_location == (moved / "mlruns" / "0").as_uri()
