"""Making a version the champion, and taking that back: the gate's comparison, promotion by hand, roll back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from ..errors import GanpipeError, UnavailableError
from ..packaging.fetching import NotUsable
from ..packaging.output_shape import difference, shape_of
from ..tracking.connection import patiently
from ..tracking.runs import Tracker
from .alias_history import AliasHistory, held, rolled_back
from .gate import Decision, Measurement, NotComparable, decide, decide_without_comparison, metric_of
from .settings import RegisterSettings
from .versions import CARD_TAG, CHALLENGER, CHAMPION, REASONS_TAG, all_versions, measurement_of, tagged, version_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ResultT = TypeVar("ResultT")
MeasureAgain = Callable[["ModelVersion"], Mapping[str, float]]
"""Measures a version under this checkout's protocol: metrics by name."""
ProtocolHere = Callable[["ModelVersion"], str]
"""Hash of the protocol under which `MeasureAgain` would measure a version."""


@dataclass(frozen=True)
class Promotion:
    """What came of it.

    Attributes:
        version: the one that was to become champion, or that a roll back went to.
        champion: version number of the champion now.
        moved: the alias was moved.
        reasons: plain sentences.
    """

    version: int
    champion: int
    moved: bool
    reasons: list[str] = field(default_factory=list)


def promote(
    tracker: Tracker,
    settings: RegisterSettings,
    measure_again: MeasureAgain,
    protocol_here: ProtocolHere,
    version: int | None = None,
    force: bool = False,
    reason: str | None = None,
    by: str | None = None,
) -> Promotion:
    """Make a version of settings.model_name the champion if the gate agrees, or with `force` all the same.

    Args:
        version: by default the challenger.
        force: needs a reason.
        reason: goes into the alias history.
        by: who; default: see `alias_history.who`.

    Raises:
        GanpipeError: bad arguments, no such version, MLflow does not answer, or nothing to measure with here.
        Overtaken: somebody else moved the champion meanwhile.
    """
    reason = (reason or "").strip()
    if force and not reason:
        raise GanpipeError("--force: needs --reason, for the alias history says why the gate was overruled")
    tracker.check()
    client, name = tracker.client(), settings.model_name
    wanted = version_of(client, tracker, name, CHALLENGER if version is None else version)
    number = int(wanted.version)
    measurement = measurement_of(wanted)
    history = AliasHistory(client, tracker, name)
    standing = history.standing(CHAMPION)
    if standing.version == number:
        return Promotion(number, number, False, [f"version {number} is the champion already."])
    champion = None if standing.version is None else version_of(client, tracker, name, standing.version)
    if force:
        decision = _opinion(measurement, champion, settings)
        reasons = [f"Forced: {reason}", *decision.reasons]
    else:
        decision = _compare(client, tracker, wanted, champion, settings, measure_again, protocol_here)
        if not decision.promote:
            return Promotion(number, standing.version or 0, False, decision.reasons)
        reasons = [*decision.reasons, *([f"Reason given: {reason}"] if reason else [])]
    taken = rolled_back(history.moves(CHAMPION), number)
    if taken is not None:
        reasons.append(f"{measurement.name} had been rolled back by {taken.by} at {taken.at} ({taken.why}).")
    moved = history.move(standing, number, " ".join(reasons), "forced" if force else "promoted", by)
    for changed in {number, standing.version} - {None}:
        write_description(client, tracker, history, str(changed))
    return Promotion(number, number, True, [*reasons, moved])


def roll_back(tracker: Tracker, name: str, reason: str | None = None, by: str | None = None) -> Promotion:
    """Return the alias `champion` to the version that it pointed to before.

    Raises:
        GanpipeError: there is nothing to go back to, no such model, or MLflow does not answer.
        Overtaken: somebody else moved the champion meanwhile.
    """
    tracker.check()
    client = tracker.client()
    history = AliasHistory(client, tracker, name)
    standing = history.standing(CHAMPION)
    present = {int(item.version) for item in all_versions(client, tracker, name)}
    earlier = [number for number in held(history.moves(CHAMPION))[:-1] if number is not None]
    target = next((number for number in reversed(earlier) if number in present and number != standing.version), None)
    if target is None:
        now = "no version is champion" if standing.version is None else f"version {standing.version} is the champion"
        gone = sorted(set(earlier) - present - {standing.version or 0})
        before = f"those before it were deleted ({', '.join(map(str, gone))})" if gone else "none was before it"
        raise GanpipeError(f"{name}: nothing to go back to: {now}, and the alias history says that {before}")
    why = (reason or "").strip() or "no reason given"
    moved = history.move(standing, target, why, "rolled back", by)
    for changed in {target, standing.version} - {None}:
        write_description(client, tracker, history, str(changed))
    return Promotion(target, target, True, [moved])


# --- the gate's comparison


def decide_against(
    client: MlflowClient,
    tracker: Tracker,
    version: ModelVersion,
    challenger: Measurement,
    champion: ModelVersion | None,
    settings: RegisterSettings,
    measure_again: MeasureAgain,
) -> Decision:
    """What the gate says of `challenger`; the champion is measured again where its own numbers do not compare, and
    `register.not_comparable` decides where that is not possible.

    Args:
        version: that `challenger` is the measurement of.

    Raises:
        GanpipeError: a metric that params.yaml names was not measured.
    """
    alone = decide(challenger, None, settings)
    if champion is None or not alone.passed:
        return alone  # without a pass, measuring the champion again is spared
    try:
        measurement, note = _champion_measurement(
            client, tracker, version, challenger, champion, settings, measure_again
        )
    except (NotComparable, NotUsable) as error:
        return decide_without_comparison(challenger, settings, str(error))
    decision = decide(challenger, measurement, settings)
    return Decision(decision.passed, decision.promote, [*note, *decision.reasons])


def _champion_measurement(
    client: MlflowClient,
    tracker: Tracker,
    version: ModelVersion,
    challenger: Measurement,
    champion: ModelVersion,
    settings: RegisterSettings,
    measure_again: MeasureAgain,
) -> tuple[Measurement, list[str]]:
    """The champion's measurement under the challenger's protocol, and a sentence where they were measured for that.

    Raises:
        NotComparable, NotUsable: there are none, and they cannot be measured.
    """
    measurement = measurement_of(champion)
    if measurement.protocol == challenger.protocol and settings.metric in measurement.metrics:
        return measurement, []
    _require_alike(tracker, champion, version)
    values = _measured_again(client, tracker, champion, challenger.protocol, measure_again)
    note = (
        f"{measurement.name} had been measured under another protocol ({measurement.protocol[:12]}), "
        f"so it was measured again under {challenger.protocol[:12]}."
    )
    again = Measurement(measurement.name, values, challenger.protocol)
    metric_of(again, settings.metric, "register.metric")
    return again, [note]


def _require_alike(tracker: Tracker, champion: ModelVersion, version: ModelVersion) -> None:
    """Both can be measured on the same data, as far as that is known.

    Raises:
        NotComparable: what differs.
    """
    old, new = shape_of(tracker, champion), shape_of(tracker, version)
    why = "" if old is None or new is None else difference(old, new, f"version {version.version}")
    if why:
        raise NotComparable(why)


def _compare(
    client: MlflowClient,
    tracker: Tracker,
    version: ModelVersion,
    champion: ModelVersion | None,
    settings: RegisterSettings,
    measure_again: MeasureAgain,
    protocol_here: ProtocolHere,
) -> Decision:
    """`decide_against` for a version that was measured at another time, perhaps under a protocol that is no longer
    this checkout's: then both are measured again."""
    measurement, note = measurement_of(version), list[str]()
    if champion is not None and decide(measurement, None, settings).passed:
        try:
            known = (
                measurement_of(champion).protocol == measurement.protocol
                or _again_tag(measurement.protocol) in champion.tags
            )
            if not known:
                _require_alike(tracker, champion, version)
        except NotComparable as error:
            return decide_without_comparison(measurement, settings, str(error))
        here = measurement.protocol if known else _with_reason(lambda: protocol_here(version))
        if here != measurement.protocol:
            values = _measured_again(client, tracker, version, here, measure_again)
            note = [f"{measurement.name} was measured again under this checkout's protocol, {here[:12]}."]
            measurement = Measurement(measurement.name, values, here)
    decision = decide_against(client, tracker, version, measurement, champion, settings, measure_again)
    return Decision(decision.passed, decision.promote, [*note, *decision.reasons], decision.compared)


def _opinion(measurement: Measurement, champion: ModelVersion | None, settings: RegisterSettings) -> Decision:
    """What the gate says without measuring anything: who overrules it wants no wait."""
    try:
        return decide(measurement, None if champion is None else measurement_of(champion), settings)
    except GanpipeError as error:  # another protocol, or a champion without numbers
        alone = decide(measurement, None, settings)
        note = f"It was not compared with the champion: {error}"
        return Decision(alone.passed, False, [*alone.reasons[: len(settings.conditions)], note])


def _again_tag(protocol_hash: str) -> str:
    return f"ganpipe.rescored.{protocol_hash[:16]}"


def _measured_again(
    client: MlflowClient, tracker: Tracker, version: ModelVersion, protocol_hash: str, measure_again: MeasureAgain
) -> Mapping[str, float]:
    """Metrics of `version` under the protocol; measured once, and kept as a tag of the version."""
    tag = _again_tag(protocol_hash)
    if (known := tagged(version, tag)) is not None:
        return known
    values = {key: float(value) for key, value in _with_reason(lambda: measure_again(version)).items()}
    text = json.dumps(values, sort_keys=True)
    patiently(lambda: client.set_model_version_tag(version.name, version.version, tag, text), tracker.uri)
    return values


def _with_reason(action: Callable[[], ResultT]) -> ResultT:
    try:
        return action()
    except (NotComparable, NotUsable, UnavailableError):
        raise
    except GanpipeError as error:
        raise GanpipeError(
            f"the two versions have numbers under different protocols, so they are measured again here, and: {error}"
        ) from error


# --- what MLflow's page shows


def write_description(client: MlflowClient, tracker: Tracker, history: AliasHistory, version: str) -> None:
    """The version's description: the card in short, what the gate said, and how it became or ceased to be champion."""
    item = patiently(lambda: client.get_model_version(history.name, version), tracker.uri)
    parts = [item.tags.get(CARD_TAG, "")]
    if REASONS_TAG in item.tags:
        parts.append(f"**Gate:** {item.tags[REASONS_TAG]}")
    for move in history.moves(CHAMPION):
        if int(version) in (move.to, move.before) and move.how != "registered":
            what = "Became champion" if move.to == int(version) else "Ceased to be champion"
            parts.append(f"**{what}** on {move.at[:10]}, {move.how} by {move.by}: {move.why}")
    text = "\n\n".join(part for part in parts if part)
    patiently(lambda: client.update_model_version(history.name, version, text), tracker.uri)
