"""Promotion by hand and roll back: the gate decides unless it is overruled, and the alias history says why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from registry_parts import NAME, PROTOCOL, Desk, add_version

from ganpipe.errors import GanpipeError
from ganpipe.registry.alias_history import AliasHistory, alias_history_of
from ganpipe.registry.promotion import Promotion, PromotionRequest, promote, roll_back
from ganpipe.registry.settings import RegisterSettings


class Office:
    """A registry with versions, and what a promotion measured again."""

    def __init__(self, desk: Desk, *fids: float, here: str = PROTOCOL) -> None:
        self.desk = desk
        self.measured: list[int] = []
        self.here = here
        self.again: dict[int, float] = {}
        for fid in fids:
            add_version(desk.client, desk.run_id, fid)

    def promote(
        self, version: int | None = None, settings: Mapping[str, Any] | None = None, **options: Any
    ) -> Promotion:
        def measure_again(item: Any) -> dict[str, float]:
            self.measured.append(int(item.version))
            return {"fid_x": self.again[int(item.version)], "recall": 0.5}

        gate = RegisterSettings.model_validate({"model_name": NAME, "metric": "fid_x", **(settings or {})})
        request = PromotionRequest(version, **options)
        return promote(self.desk.tracker, gate, measure_again, lambda item: self.here, request)

    def back(self, **options: Any) -> Promotion:
        return roll_back(self.desk.tracker, NAME, **options)

    @property
    def champion(self) -> int:
        return int(self.desk.client.get_registered_model(NAME).aliases["champion"])


def test_the_gate_decides(desk: Desk) -> None:
    office = Office(desk, 40.0, 45.0, 30.0)
    assert office.promote(1).moved
    refused = office.promote(2)
    assert (refused.moved, refused.champion) == (False, 1)
    assert "version 2 does not win" in refused.reasons[-1]
    done = office.promote(3, reason="the demo on Friday", by="ada")
    assert (done.moved, done.champion, office.champion) == (True, 3, 3)
    last = alias_history_of(desk.client, desk.tracker, NAME)[-1]
    assert (last["from"], last["to"], last["by"], last["how"]) == (1, 3, "ada", "promoted")
    assert "30 against 40 of version 1" in last["why"]
    assert "Reason given: the demo on Friday" in last["why"]
    again = office.promote(3)
    assert (again.moved, again.champion) == (False, 3)
    assert again.reasons == ["version 3 is the champion already."]


def test_the_challenger_is_the_default(desk: Desk) -> None:
    office = Office(desk, 40.0, 30.0)
    with pytest.raises(GanpipeError, match="tests has no challenger: its newest version is 2, and "):
        office.promote()
    desk.client.set_registered_model_alias(NAME, "challenger", "2")
    assert office.promote().champion == 2


def test_force_needs_a_reason_and_leaves_it(desk: Desk) -> None:
    office = Office(desk, 40.0, 45.0)
    office.promote(1)
    for reason in (None, "", "  "):
        with pytest.raises(GanpipeError, match="--force: needs --reason"):
            office.promote(2, force=True, reason=reason)
    assert office.promote(2, force=True, reason="legal asked", by="bob").champion == office.champion == 2
    last = alias_history_of(desk.client, desk.tracker, NAME)[-1]
    assert (last["by"], last["how"]) == ("bob", "forced")
    assert last["why"].startswith("Forced: legal asked ")
    assert "version 2 does not win" in last["why"]
    description = desk.client.get_model_version(NAME, "2").description
    assert description.startswith("A generator.\n\n**Became champion** on ")
    assert "forced by bob: Forced: legal asked" in description
    assert "**Ceased to be champion**" in desk.client.get_model_version(NAME, "1").description


def test_force_measures_nothing(desk: Desk) -> None:
    office = Office(desk, 40.0)
    add_version(desk.client, desk.run_id, 50.0, "q" * 64)
    office.promote(1)
    assert office.promote(2, force=True, reason="now").champion == 2
    assert office.measured == []
    assert (
        "It was not compared with the champion: fid_x of version 2 was measured"
        in alias_history_of(desk.client, desk.tracker, NAME)[-1]["why"]
    )


def test_force_replaces_a_strangers_champion(desk: Desk) -> None:
    office = Office(desk, 40.0)
    desk.client.create_model_version(NAME, "mlflow-artifacts:/none", desk.run_id)
    desk.client.set_registered_model_alias(NAME, "champion", "2")
    refused = office.promote(1)
    assert not refused.moved
    assert refused.reasons[-1].startswith("Not comparable: version 2 of tests has no numbers in its tag 'ganpipe.metr")
    assert office.promote(1, force=True, reason="2 is nobody's").champion == office.champion == 1


def test_conditions_hold_here_too(desk: Desk) -> None:
    office = Office(desk, 40.0)
    refused = office.promote(1, {"conditions": {"recall": {"min": 0.9}}})
    assert (refused.moved, refused.champion) == (False, 0)
    assert refused.reasons[0] == "Condition on recall does not hold: 0.5, wanted at least 0.9."


def test_another_protocol_of_this_checkout_measures_the_champion_again(desk: Desk) -> None:
    office = Office(desk, 40.0, here="q" * 64)
    add_version(desk.client, desk.run_id, 50.0, "q" * 64)
    office.promote(1)
    office.again = {1: 60.0}
    done = office.promote(2)
    assert (done.champion, office.measured) == (2, [1])
    assert "50 against 60 of version 1" in done.reasons[1]


def test_where_neither_protocol_is_this_checkouts_both_are_measured_again_and_once(desk: Desk) -> None:
    office = Office(desk, 40.0, here="r" * 64)
    add_version(desk.client, desk.run_id, 30.0, "q" * 64)
    office.promote(1)
    office.again = {1: 20.0, 2: 25.0}
    refused = office.promote(2)
    assert (refused.moved, sorted(office.measured)) == (False, [1, 2])
    assert "25 against 20 of version 1" in refused.reasons[-1]
    office.promote(2)
    assert sorted(office.measured) == [1, 2]


def test_what_cannot_be_measured_here_says_why_it_had_to_be(desk: Desk) -> None:
    office = Office(desk, 40.0)
    add_version(desk.client, desk.run_id, 30.0, "q" * 64)
    office.promote(1)

    def nothing_here(item: Any) -> str:
        raise GanpipeError("artifacts/shards/manifest.json: no such file")

    gate = RegisterSettings(model_name=NAME, metric="fid_x")
    with pytest.raises(GanpipeError, match="different protocols, so they are measured again here, and: artifacts"):
        promote(desk.tracker, gate, lambda item: {}, nothing_here, PromotionRequest(2))
    assert office.champion == 1


def test_what_is_not_there_is_named(desk: Desk) -> None:
    with pytest.raises(GanpipeError, match="has no registered model 'tests'; `make run` makes the first one"):
        Office(desk).promote(1)
    office = Office(desk, 40.0)
    with pytest.raises(GanpipeError, match="tests has no version 7; versions: 1; aliases: none"):
        office.promote(7)
    desk.client.create_model_version(NAME, "mlflow-artifacts:/none", desk.run_id)
    with pytest.raises(GanpipeError, match="version 2 of tests has no numbers in its tag 'ganpipe.metrics'"):
        office.promote(2, force=True, reason="mine")


def test_rolling_back_walks_back_as_the_trail_says(desk: Desk) -> None:
    office = Office(desk, 40.0, 30.0, 20.0)
    for number in (1, 2, 3):
        office.promote(number)
    assert office.back(reason="too blurred", by="ada").champion == office.champion == 2
    assert office.back().champion == office.champion == 1
    with pytest.raises(
        GanpipeError, match=r"nothing to go back to: version 1 is the champion, .* no other version was before it"
    ):
        office.back()
    moves = [
        (move["from"], move["to"], move["how"], move["why"])
        for move in alias_history_of(desk.client, desk.tracker, NAME)
    ][3:]
    assert moves == [(3, 2, "rolled back", "too blurred"), (2, 1, "rolled back", "no reason given")]
    done = office.promote(3)
    assert (done.moved, office.champion) == (True, 3)
    assert "version 3 had been rolled back by ada" in done.reasons[-2]
    assert office.back().champion == 1


def test_rolling_back_passes_by_what_was_deleted(desk: Desk) -> None:
    office = Office(desk, 40.0, 30.0, 20.0)
    for number in (1, 2, 3):
        office.promote(number)
    desk.client.delete_model_version(NAME, "2")
    assert office.back().champion == 1
    office.promote(3)
    desk.client.delete_model_version(NAME, "1")
    with pytest.raises(GanpipeError, match=r"those before it were deleted \(1\)"):
        office.back()


def test_without_a_champion_there_is_nothing_to_go_back_to(desk: Desk) -> None:
    office = Office(desk, 40.0)
    with pytest.raises(
        GanpipeError, match="no version is champion, and the alias history says that no other version was before"
    ):
        office.back()


def test_registering_again_does_not_undo_a_roll_back(desk: Desk) -> None:
    desk.register(40.0)
    assert desk.register(30.0).champion == 2
    assert roll_back(desk.tracker, NAME, "it repeats itself", "ada").champion == 1
    again = desk.register(30.0)
    assert (again.version, again.champion, again.moved) == (2, 1, [])
    # Other settings of the gate are decided anew, yet what a person took back only a person gives again.
    other = desk.register(30.0, minimum_improvement=0.01)
    assert (other.version, other.champion, other.moved) == (2, 1, [])
    assert "was rolled back by ada" in other.decision.reasons[-1]
    assert desk.register(29.0).champion == 3


def test_registering_decides_anew_when_somebody_was_faster(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.register(40.0)
    add_version(desk.client, desk.run_id, 10.0)
    real, calls = AliasHistory.move, []

    def slow(self: AliasHistory, state: Any, *arguments: Any, **options: Any) -> str:
        if state.alias == "champion" and not calls:
            calls.append(1)
            other = AliasHistory(desk.tracker.client(), desk.tracker, NAME)
            real(other, other.state("champion"), 2, "meanwhile", "promoted", by="ada")
        return real(self, state, *arguments, **options)

    monkeypatch.setattr(AliasHistory, "move", slow)
    done = desk.register(30.0)  # beats version 1 with 40, and not version 2 with 10
    assert (done.version, done.champion, calls) == (3, 2, [1])
    assert "30 against 10 of version 2" in done.decision.text
