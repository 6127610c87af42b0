"""The alias history orders all moves of an alias: of two at once one wins, and what is left half done is completed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow_parts import race
from registry_parts import NAME, Desk, add_version

from ganpipe.errors import GanpipeError
from ganpipe.registry.alias_history import (
    AliasHistory,
    AliasState,
    Overtaken,
    alias_history_of,
    find_roll_back,
    rollback_stack,
)

CHAMPION = "champion"


@pytest.fixture
def history(desk: Desk) -> AliasHistory:
    """Of a model with versions 1 to 4."""
    for number in range(4):
        add_version(desk.client, desk.run_id, 40.0 - number)
    return AliasHistory(desk.client, desk.tracker, NAME)


def pointed(desk: Desk, alias: str = CHAMPION) -> int | None:
    number = desk.client.get_registered_model(NAME).aliases.get(alias)
    return None if number is None else int(number)


def test_moves_are_kept_in_order_with_who_and_why(
    desk: Desk, history: AliasHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANPIPE_USER", "ci")
    assert history.move(history.state(CHAMPION), 1, "the\nfirst", "registered") == "champion moved to version 1."
    assert history.move(history.state(CHAMPION), 3, "better", "promoted", by="ada") == (
        "champion moved from version 1 to version 3."
    )
    assert history.move(history.state(CHAMPION), 3, "again", "promoted") == ""
    history.move(history.state("challenger"), 2, "x" * 9000, "registered")
    found = alias_history_of(desk.client, desk.tracker, NAME)
    assert [(m["alias"], m["number"], m["from"], m["to"], m["by"], m["why"], m["how"]) for m in found[:2]] == [
        ("champion", 1, None, 1, "ci", "the first", "registered"),
        ("champion", 2, 1, 3, "ada", "better", "promoted"),
    ]
    assert len(found) == 3
    assert all(move["at"].endswith("+00:00") for move in found)
    assert (pointed(desk), pointed(desk, "challenger")) == (3, 2)


def test_who_looked_before_another_moved_is_told_so(desk: Desk, history: AliasHistory) -> None:
    other = AliasHistory(desk.tracker.client(), desk.tracker, NAME)
    assert other.run_id == history.run_id
    seen = history.state(CHAMPION)
    other.move(other.state(CHAMPION), 2, "first", "promoted", by="ada")
    with pytest.raises(Overtaken, match=r"^ada moved champion of tests to version 2 at .*nothing was changed"):
        history.move(seen, 3, "second", "promoted", by="bob")
    assert pointed(desk) == 2
    assert len(history.moves(CHAMPION)) == 1


def test_a_move_that_was_cut_short_is_completed_by_the_next_look(
    desk: Desk, history: AliasHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            history.move(history.state(CHAMPION), 2, "why", "promoted")
    assert pointed(desk) is None
    assert history.state(CHAMPION) == AliasState(CHAMPION, 1, 2)
    assert pointed(desk) == 2


def test_a_writer_that_slept_does_not_undo_a_later_move(
    desk: Desk, history: AliasHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MlflowClient.set_registered_model_alias
    other = AliasHistory(desk.tracker.client(), desk.tracker, NAME)

    def late(self: MlflowClient, name: str, alias: str, version: str) -> None:
        monkeypatch.setattr(MlflowClient, "set_registered_model_alias", real)
        other.move(other.state(CHAMPION), 3, "meanwhile", "promoted")  # while the first one sleeps
        real(self, name, alias, version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", late)
    history.move(history.state(CHAMPION), 2, "early", "promoted")
    assert [move.to for move in history.moves(CHAMPION)] == [2, 3]
    assert pointed(desk) == 3


def test_a_move_by_other_hands_is_noted_not_undone(desk: Desk, history: AliasHistory) -> None:
    history.move(history.state(CHAMPION), 2, "why", "promoted")
    desk.client.set_registered_model_alias(NAME, CHAMPION, "1")
    assert history.state(CHAMPION) == AliasState(CHAMPION, 2, 1)
    desk.client.delete_registered_model_alias(NAME, CHAMPION)
    assert history.state(CHAMPION) == AliasState(CHAMPION, 3, None)
    assert pointed(desk) is None
    assert [(m.before, m.to, m.how) for m in history.moves(CHAMPION)[1:]] == [
        (2, 1, "outside ganpipe"),
        (1, None, "outside ganpipe"),
    ]


def test_a_version_that_was_deleted_stops_nobody(desk: Desk, history: AliasHistory) -> None:
    history.move(history.state(CHAMPION), 2, "why", "promoted")
    desk.client.delete_model_version(NAME, "2")
    assert history.state(CHAMPION).version is None
    history.move(history.state(CHAMPION), 3, "why", "promoted")
    assert pointed(desk) == 3


def test_the_trails_run_is_missed_with_a_word(desk: Desk, history: AliasHistory) -> None:
    history.state(CHAMPION)
    desk.client.delete_run(history.run_id)
    with pytest.raises(GanpipeError, match=f"mlflow runs restore --run-id {history.run_id}"):
        history.state(CHAMPION)
    desk.client.set_registered_model_tag(NAME, "ganpipe.trail", "0" * 32)
    with pytest.raises(GanpipeError, match=f"mlflow runs restore --run-id {history.run_id}"):  # it is found again
        AliasHistory(desk.client, desk.tracker, NAME).state(CHAMPION)


def test_a_model_of_others_has_no_trail(desk: Desk) -> None:
    desk.client.create_registered_model(NAME)
    desk.client.create_model_version(NAME, "mlflow-artifacts:/none", desk.run_id)
    assert alias_history_of(desk.client, desk.tracker, NAME) == []
    with pytest.raises(GanpipeError, match="registered none of the versions of tests"):
        AliasHistory(desk.client, desk.tracker, NAME)
    with pytest.raises(GanpipeError, match="has no registered model 'test'; did you mean 'tests'"):
        AliasHistory(desk.client, desk.tracker, "test")


def test_what_an_alias_would_go_back_to(history: AliasHistory) -> None:
    def move(to: int, how: Any = "promoted") -> None:
        history.move(history.state(CHAMPION), to, "why", how)

    move(1)
    move(2)
    move(3)
    assert rollback_stack(history.moves(CHAMPION)) == [1, 2, 3]
    move(2, "rolled back")
    assert rollback_stack(history.moves(CHAMPION)) == [1, 2]
    taken = find_roll_back(history.moves(CHAMPION), 3)
    assert taken is not None
    assert find_roll_back(history.moves(CHAMPION), 2) is None
    move(4)
    assert rollback_stack(history.moves(CHAMPION)) == [1, 2, 4]
    move(1, "rolled back")  # 2 was deleted, say
    assert rollback_stack(history.moves(CHAMPION)) == [1]
    move(3)
    assert find_roll_back(history.moves(CHAMPION), 3) is None


def test_of_two_promotions_at_once_one_wins_and_the_other_says_so(desk: Desk, tmp_path: Path) -> None:
    race(tmp_path, desk.tracker, desk.run_id, rounds=8)
