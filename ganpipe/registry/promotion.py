"""Which registered version is the champion: the gate's comparison of versions, promotion by hand, roll back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from ..errors import GanpipeError, UnavailableError
from ..packaging.fetching import NotUsable
from ..packaging.output_shape import incompatibility, shape_of
from ..tracking.connection import with_retries
from ..tracking.runs import Tracker
from ..tracking.seeds import RECIPE_TAG, over_seeds
from .alias_history import AliasHistory, find_roll_back, rollback_stack
from .gate import Decision, Measurement, NotComparable, decide, decide_without_comparison, metric_of
from .settings import RegisterSettings
from .versions import CARD_TAG, CHALLENGER, CHAMPION, REASONS_TAG, all_versions, json_tag, measurement_of, version_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ResultT = TypeVar("ResultT")
MeasureAgain = Callable[["ModelVersion"], Mapping[str, float]]
"""Measures a version under this checkout's protocol: metrics by name."""
ProtocolHere = Callable[["ModelVersion"], str]
"""Hash of the protocol under which `MeasureAgain` would measure a version."""


@dataclass(frozen=True)
class PromotionRequest:
    """What a person asks `promote` to do.

    Attributes:
        version: number of the version; None for the challenger.
        force: make it the champion even if the gate refuses; needs a reason.
        reason: for the alias history.
        by: who asks, for the alias history; None for `alias_history.current_user()`.
    """

    version: int | None = None
    force: bool = False
    reason: str | None = None
    by: str | None = None


@dataclass(frozen=True)
class Promotion:
    """The result of a promotion or a roll back.

    Attributes:
        version: the version that should become champion, or that a roll back returned to.
        champion: version number of the champion now; 0 if there is no champion.
        moved: whether the alias was moved.
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
    request: PromotionRequest,
) -> Promotion:
    """Make a version of settings.model_name the champion if the gate agrees, or with `request.force` in any case.

    Raises:
        GanpipeError: bad arguments, no such version, MLflow does not answer, or this checkout lacks what a measurement
            needs.
        Overtaken: somebody else moved the champion meanwhile.
    """
    reason = (request.reason or "").strip()
    if request.force and not reason:
        raise GanpipeError("--force: needs --reason, because the alias history says why the gate was overruled")
    tracker.check()
    client, name = tracker.client(), settings.model_name
    wanted = version_of(client, tracker, name, CHALLENGER if request.version is None else request.version)
    number = int(wanted.version)
    measurement = measurement_of(wanted)
    history = AliasHistory(client, tracker, name)
    state = history.state(CHAMPION)
    if state.version == number:
        return Promotion(number, number, False, [f"version {number} is the champion already."])
    champion = None if state.version is None else version_of(client, tracker, name, state.version)
    if request.force:
        decision = _decide_without_measuring(measurement, champion, settings)
        reasons = [f"Forced: {reason}", *decision.reasons]
    else:
        gate = VersionGate(client, tracker, settings, measure_again)
        decision = gate.decide_anew(wanted, champion, protocol_here)
        if not decision.promote:
            return Promotion(number, state.version or 0, False, decision.reasons)
        reasons = [*decision.reasons, *([f"Reason given: {reason}"] if reason else [])]
    taken = find_roll_back(history.moves(CHAMPION), number)
    if taken is not None:
        reasons.append(f"{measurement.name} had been rolled back by {taken.by} at {taken.at} ({taken.why}).")
    moved = history.move(state, number, " ".join(reasons), "forced" if request.force else "promoted", request.by)
    for changed in {number, state.version} - {None}:
        write_description(client, tracker, history, str(changed))
    return Promotion(number, number, True, [*reasons, moved])


def roll_back(tracker: Tracker, name: str, reason: str | None = None, by: str | None = None) -> Promotion:
    """Return the alias `champion` of the model `name` to the version that it pointed to before.

    Args:
        reason: for the alias history.
        by: who asks, for the alias history; None for `alias_history.current_user()`.

    Raises:
        GanpipeError: there is no earlier champion, no such model, or MLflow does not answer.
        Overtaken: somebody else moved the champion meanwhile.
    """
    tracker.check()
    client = tracker.client()
    history = AliasHistory(client, tracker, name)
    state = history.state(CHAMPION)
    present = {int(item.version) for item in all_versions(client, tracker, name)}
    earlier = [number for number in rollback_stack(history.moves(CHAMPION))[:-1] if number is not None]
    target = next((number for number in reversed(earlier) if number in present and number != state.version), None)
    if target is None:
        now = "no version is champion" if state.version is None else f"version {state.version} is the champion"
        gone = sorted(set(earlier) - present - {state.version or 0})
        before = (
            f"those before it were deleted ({', '.join(map(str, gone))})" if gone else "no other version was before it"
        )
        raise GanpipeError(f"{name}: nothing to go back to: {now}, and the alias history says that {before}")
    why = (reason or "").strip() or "no reason given"
    moved = history.move(state, target, why, "rolled back", by)
    for changed in {target, state.version} - {None}:
        write_description(client, tracker, history, str(changed))
    return Promotion(target, target, True, [moved])


# --- the gate's comparison


@dataclass(frozen=True)
class VersionGate:
    """The gate for registered versions: it takes their measurements from MLflow, and has a version measured again where
    two measurements are of different protocols.

    Attributes:
        measure_again: measures a version under this checkout's protocol.
    """

    client: MlflowClient
    tracker: Tracker
    settings: RegisterSettings
    measure_again: MeasureAgain

    def decide(self, version: ModelVersion, challenger: Measurement, champion: ModelVersion | None) -> Decision:
        """Compare `challenger` with the champion. The champion is measured again if its own measurement does not
        compare; if that is not possible, `register.not_comparable` decides.

        Args:
            version: the version that `challenger` is the measurement of.
            champion: None if there is no champion.

        Raises:
            GanpipeError: a metric that params.yaml names was not measured.
        """
        alone = decide(challenger, None, self.settings)
        if champion is None or not alone.passed:
            return alone  # a challenger that fails its conditions needs no measurement of the champion
        try:
            measurement, notes = self._champion_measurement(version, challenger, champion)
        except (NotComparable, NotUsable) as error:
            return decide_without_comparison(challenger, self.settings, str(error))
        if self.settings.minimum_improvement == "auto":
            challenger, measurement = (
                self._with_seeds(*pair) for pair in ((challenger, version), (measurement, champion))
            )
        decision = decide(challenger, measurement, self.settings)
        return Decision(decision.passed, decision.promote, [*notes, *decision.reasons])

    def _with_seeds(self, measurement: Measurement, version: ModelVersion) -> Measurement:
        values = over_seeds(
            self.client, self.tracker, version.tags.get(RECIPE_TAG, ""), measurement.protocol, self.settings.metric
        )
        return replace(measurement, over_seeds=values)

    def decide_anew(
        self, version: ModelVersion, champion: ModelVersion | None, protocol_here: ProtocolHere
    ) -> Decision:
        """As `decide`, for a version that was registered earlier, perhaps under a protocol that this checkout no longer
        has: then both versions are measured again."""
        measurement, notes = measurement_of(version), list[str]()
        if champion is not None and decide(measurement, None, self.settings).passed:
            try:
                comparable = (
                    measurement_of(champion).protocol == measurement.protocol
                    or _remeasured_tag(measurement.protocol) in champion.tags
                )
                if not comparable:
                    self._require_same_data(champion, version)
            except NotComparable as error:
                return decide_without_comparison(measurement, self.settings, str(error))
            here = measurement.protocol if comparable else _explain_remeasuring(lambda: protocol_here(version))
            if here != measurement.protocol:
                metrics = self._remeasured(version, here)
                notes = [f"{measurement.name} was measured again under this checkout's protocol, {here[:12]}."]
                measurement = Measurement(measurement.name, metrics, here)
        decision = self.decide(version, measurement, champion)
        return Decision(decision.passed, decision.promote, [*notes, *decision.reasons], decision.compared)

    def _champion_measurement(
        self, version: ModelVersion, challenger: Measurement, champion: ModelVersion
    ) -> tuple[Measurement, list[str]]:
        """The champion's measurement under the challenger's protocol, and a sentence if it was measured again.

        Raises:
            NotComparable, NotUsable: the champion has no such measurement, and cannot be measured.
        """
        measurement = measurement_of(champion)
        if measurement.protocol == challenger.protocol and self.settings.metric in measurement.metrics:
            return measurement, []
        self._require_same_data(champion, version)
        metrics = self._remeasured(champion, challenger.protocol)
        note = (
            f"{measurement.name} had been measured under another protocol ({measurement.protocol[:12]}), "
            f"so it was measured again under {challenger.protocol[:12]}."
        )
        remeasured = Measurement(measurement.name, metrics, challenger.protocol)
        metric_of(remeasured, self.settings.metric, "register.metric")
        return remeasured, [note]

    def _require_same_data(self, champion: ModelVersion, version: ModelVersion) -> None:
        """Return if both versions can be measured on the same data, as far as the registry tells.

        Raises:
            NotComparable: what differs.
        """
        old, new = shape_of(self.tracker, champion), shape_of(self.tracker, version)
        why = "" if old is None or new is None else incompatibility(old, new, f"version {version.version}")
        if why:
            raise NotComparable(why)

    def _remeasured(self, version: ModelVersion, protocol_hash: str) -> Mapping[str, float]:
        """Metrics of `version` under the protocol; measured once, and kept as a tag of the version."""
        tag = _remeasured_tag(protocol_hash)
        if (known := json_tag(version, tag)) is not None:
            return known
        measured = _explain_remeasuring(lambda: self.measure_again(version))
        metrics = {key: float(value) for key, value in measured.items()}
        text = json.dumps(metrics, sort_keys=True)
        with_retries(
            lambda: self.client.set_model_version_tag(version.name, version.version, tag, text), self.tracker.uri
        )
        return metrics


def _remeasured_tag(protocol_hash: str) -> str:
    return f"ganpipe.rescored.{protocol_hash[:16]}"


def _explain_remeasuring(action: Callable[[], ResultT]) -> ResultT:
    """`action`'s result; its error says, too, why it was called."""
    try:
        return action()
    except (NotComparable, NotUsable, UnavailableError):
        raise
    except GanpipeError as error:
        raise GanpipeError(
            f"the two versions have numbers under different protocols, so they are measured again here, and: {error}"
        ) from error


def _decide_without_measuring(
    measurement: Measurement, champion: ModelVersion | None, settings: RegisterSettings
) -> Decision:
    """The gate's decision on what is measured already, because `--force` should not make anybody wait."""
    try:
        return decide(measurement, None if champion is None else measurement_of(champion), settings)
    except GanpipeError as error:  # another protocol, or a champion without metrics
        alone = decide(measurement, None, settings)
        note = f"It was not compared with the champion: {error}"
        return Decision(alone.passed, False, [*alone.reasons[: len(settings.conditions)], note])


# --- what MLflow's page shows


def write_description(client: MlflowClient, tracker: Tracker, history: AliasHistory, version: str) -> None:
    """Write the version's description: the card's summary, what the gate said, and how the version became champion or
    ceased to be the champion."""
    item = with_retries(lambda: client.get_model_version(history.name, version), tracker.uri)
    parts = [item.tags.get(CARD_TAG, "")]
    if REASONS_TAG in item.tags:
        parts.append(f"**Gate:** {item.tags[REASONS_TAG]}")
    for move in history.moves(CHAMPION):
        if int(version) in (move.to, move.before) and move.how != "registered":
            what = "Became champion" if move.to == int(version) else "Ceased to be champion"
            parts.append(f"**{what}** on {move.at[:10]}, {move.how} by {move.by}: {move.why}")
    text = "\n\n".join(part for part in parts if part)
    with_retries(lambda: client.update_model_version(history.name, version, text), tracker.uri)
