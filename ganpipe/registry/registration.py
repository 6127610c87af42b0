"""Registering a generator: what the gate's decision does to MLflow's model registry.

Registering can be repeated: for a package that was registered before with the same metrics, the existing version is
found. What depends on the registry's state (version number, which version was champion, the decision) is written to
MLflow and returned, but never written to a DVC output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..packaging.card import CARD_FILE, card_summary
from ..packaging.package import digest_of_package, log_model
from ..tracking.connection import as_default_tracking_uri, with_retries
from ..tracking.run_log import MAX_TAG_LENGTH, clean_key, shorten
from ..tracking.runs import Tracker
from ..tracking.seeds import PROTOCOL_TAG
from .alias_history import AliasHistory, AliasState, Overtaken, find_roll_back
from .gate import Decision, Measurement, decide
from .promotion import MeasureAgain, VersionGate, write_description
from .settings import RegisterSettings
from .versions import (
    CARD_TAG,
    CHALLENGER,
    CHAMPION,
    CONTENT_TAG,
    DECISION_TAG,
    GATE_TAG,
    INTERVALS_TAG,
    METRICS_TAG,
    REASONS_TAG,
    find_version,
    json_tag,
    quoted,
    version_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.logged_model import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

ATTEMPTS = 5
"""How often a decision is repeated because somebody moved the champion meanwhile."""


@dataclass(frozen=True)
class Candidate:
    """A packaged generator that is to be registered.

    Attributes:
        package_dir: made by `build_package`.
        metrics: of the evaluation, by name.
        protocol_hash: of the protocol under which the metrics were measured.
        run_id: the MLflow run that the model belongs to.
        tags: more tags for the model version (licence, digests, commit).
        intervals: of the metrics, see `gate.Measurement`.
    """

    package_dir: Path
    metrics: Mapping[str, float]
    protocol_hash: str
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Registration:
    """The result of `register`.

    Attributes:
        version: number of the model version.
        uri: `models:/<name>/<version>`.
        alias_uri: `models:/<name>@<alias>`, with champion if the version has that alias, else with challenger; `uri` if
            it has neither.
        aliases: the aliases that point to the version now, sorted.
        decision: what the gate says, and why.
        created: a new version was made; false if the same content was registered before.
        champion: version number of the champion now; None if there is no champion.
        moved: sentences that say which aliases moved.
    """

    version: int
    uri: str
    alias_uri: str
    aliases: list[str]
    decision: Decision
    created: bool
    champion: int | None
    moved: list[str] = field(default_factory=list)


def content_digest(package_digest: str, metrics: Mapping[str, float], protocol_hash: str) -> str:
    """Hex SHA-256 of what identifies a version: package, metrics and their protocol."""
    text = json.dumps([package_digest, dict(metrics), protocol_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def register(
    candidate: Candidate, settings: RegisterSettings, tracker: Tracker, measure_again: MeasureAgain
) -> Registration:
    """Register the package, decide, and move the aliases.

    Args:
        measure_again: measures the champion under the candidate's protocol; called only if the champion's own
            metrics have another protocol, or lack the gate's metric.

    Raises:
        GanpipeError: MLflow does not answer, or a metric that params.yaml names was not measured.
    """
    tracker.check()
    gate = VersionGate(tracker.client(), tracker, settings, measure_again)
    metrics, protocol_hash = candidate.metrics, candidate.protocol_hash
    # A metric that params.yaml names and that was not measured is an error before anything is written.
    decide(Measurement("the challenger", metrics, protocol_hash), None, settings)
    content = content_digest(digest_of_package(candidate.package_dir), metrics, protocol_hash)
    version = find_version(gate.client, tracker, settings.model_name, content)
    created = version is None
    if version is None:
        version = _create_version(gate, candidate, content)
    challenger = Measurement(f"version {version.version}", metrics, protocol_hash, candidate.intervals)
    return _decide_and_move(gate, version, challenger, created)


def _decide_and_move(gate: VersionGate, version: ModelVersion, challenger: Measurement, created: bool) -> Registration:
    """Decide on the version and move the aliases; again, where somebody else moved the champion meanwhile."""
    number = int(version.version)
    text = gate.settings.model_dump_json(exclude={"experiment", "require_commit"})
    settings_digest = hashlib.sha256(text.encode()).hexdigest()
    history = AliasHistory(gate.client, gate.tracker, gate.settings.model_name)
    for attempt in range(ATTEMPTS):
        state = history.state(CHAMPION)
        earlier = _earlier_decision(version, settings_digest) if state.version is not None else None
        if earlier is not None:
            return _result(gate, version, earlier, created, [])
        decision = _decide(gate, history, version, challenger, state)
        try:
            moved = _move_aliases(history, number, state, decision)
        except Overtaken:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            break
    _write_decision(gate, history, version, decision, settings_digest)
    return _result(gate, version, decision, created, moved)


def _ensure_model(client: MlflowClient, tracker: Tracker, name: str) -> None:
    from mlflow.exceptions import MlflowException

    def ensure() -> None:
        if client.search_registered_models(f"name = {quoted(name)}"):
            return
        try:
            client.create_registered_model(name, description="Generators trained by ganpipe.")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise

    with_retries(ensure, tracker.uri)


def _create_version(gate: VersionGate, candidate: Candidate, content: str) -> ModelVersion:
    client, tracker, name = gate.client, gate.tracker, gate.settings.model_name
    package_dir, run_id = candidate.package_dir, candidate.run_id
    description = json.loads((package_dir / "model.json").read_text())
    _ensure_model(client, tracker, name)
    tags = {
        **candidate.tags,
        CONTENT_TAG: content,
        METRICS_TAG: json.dumps(dict(candidate.metrics), sort_keys=True),
        INTERVALS_TAG: json.dumps(dict(candidate.intervals), sort_keys=True),
        PROTOCOL_TAG: candidate.protocol_hash,
        CARD_TAG: card_summary((package_dir / CARD_FILE).read_text(encoding="utf-8")),
        "ganpipe.gan": description["gan"],
        "ganpipe.run_key": description["run_key"],
        "ganpipe.licence": description["licence"],
        **{f"ganpipe.digest.{key}": value for key, value in description["digests"].items()},
        **{f"metric.{key}": f"{value:.6g}" for key, value in candidate.metrics.items()},
    }
    tags = {clean_key(key): shorten(str(value), MAX_TAG_LENGTH) for key, value in tags.items()}
    model = with_retries(lambda: _logged_model(client, run_id, package_dir, description["gan"], tags), tracker.uri)
    source = f"models:/{model.model_id}"

    def create() -> ModelVersion:
        with as_default_tracking_uri(tracker.uri):
            return client.create_model_version(name, source, run_id, tags, model_id=model.model_id)

    return with_retries(create, tracker.uri)


def _logged_model(
    client: MlflowClient, run_id: str, package_dir: Path, gan: str, tags: Mapping[str, str]
) -> LoggedModel:
    """The model that an earlier, interrupted attempt logged for the same content; else a new one."""
    experiment = client.get_run(run_id).info.experiment_id
    condition = f"tags.`{CONTENT_TAG}` = '{tags[CONTENT_TAG]}'"
    found = [item for item in client.search_logged_models([experiment], condition) if str(item.status) == "READY"]
    return found[0] if found else log_model(client, run_id, package_dir, clean_key(gan), tags)


def _decide(
    gate: VersionGate, history: AliasHistory, version: ModelVersion, challenger: Measurement, state: AliasState
) -> Decision:
    number = int(version.version)
    if state.version == number:
        checked = decide(challenger, None, gate.settings)
        return Decision(checked.passed, False, [*checked.reasons[:-1], f"{challenger.name} is the champion already."])
    champion = None if state.version is None else version_of(gate.client, gate.tracker, history.name, state.version)
    decision = gate.decide(version, challenger, champion)
    if not decision.compared and not decision.promote:
        decision.reasons.append(
            f"To make it the champion: `ganpipe promote --version {number} --force --reason WHY`. To let every such "
            "generator replace the champion: register.not_comparable: replace. To keep both: another "
            "register.model_name."
        )
    taken = find_roll_back(history.moves(CHAMPION), number)
    if taken is None or not decision.promote:
        return decision
    note = (
        f"{challenger.name} was rolled back by {taken.by} at {taken.at} ({taken.why}), so only `ganpipe promote` makes "
        "it the champion again."
    )
    return Decision(decision.passed, False, [*decision.reasons, note])


def _earlier_decision(version: ModelVersion, settings_digest: str) -> Decision | None:
    """The decision on this version under the same settings. It holds, because otherwise registering again would undo a
    roll back."""
    return decision_of(version) if version.tags.get(GATE_TAG) == settings_digest else None


def decision_of(version: ModelVersion) -> Decision | None:
    """What the gate said when the version was registered; None if the version has no readable tag of it."""
    values = json_tag(version, DECISION_TAG)
    if values is None or not {"passed", "promote", "reasons"} <= set(values) or not isinstance(values["reasons"], list):
        return None
    return Decision(values["passed"], values["promote"], [str(reason) for reason in values["reasons"]])


def _move_aliases(history: AliasHistory, number: int, champion: AliasState, decision: Decision) -> list[str]:
    moved = []
    challenger = history.state(CHALLENGER)
    if decision.passed and (challenger.version is None or challenger.version < number):
        moved.append(history.move(challenger, number, decision.text, "registered"))
    if decision.promote:
        moved.append(history.move(champion, number, decision.text, "registered"))
    return [sentence for sentence in moved if sentence]


def _write_decision(
    gate: VersionGate, history: AliasHistory, version: ModelVersion, decision: Decision, settings_digest: str
) -> None:
    def tag(key: str, value: str) -> None:
        set_tag = partial(gate.client.set_model_version_tag, history.name, version.version, key, value)
        with_retries(set_tag, gate.tracker.uri)

    values = {"passed": decision.passed, "promote": decision.promote, "reasons": decision.reasons}
    tag(DECISION_TAG, json.dumps(values, sort_keys=True))
    tag(REASONS_TAG, decision.text)
    write_description(gate.client, gate.tracker, history, version.version)
    tag(GATE_TAG, settings_digest)  # last, because it says that everything else is written


def _result(
    gate: VersionGate, version: ModelVersion, decision: Decision, created: bool, moved: list[str]
) -> Registration:
    name = gate.settings.model_name
    model = with_retries(lambda: gate.client.get_registered_model(name), gate.tracker.uri)
    numbers = {alias: int(number) for alias, number in model.aliases.items()}
    number = int(version.version)
    aliases = sorted(alias for alias, target in numbers.items() if target == number)
    uri = f"models:/{name}/{number}"
    best = next((alias for alias in (CHAMPION, CHALLENGER) if alias in aliases), None)
    alias_uri = uri if best is None else f"models:/{name}@{best}"
    return Registration(number, uri, alias_uri, aliases, decision, created, numbers.get(CHAMPION), moved)
