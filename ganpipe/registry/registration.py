"""Registering a generator: what the gate's decision does to MLflow's model registry.

Everything here can be done again: a package that was registered before, with the same metrics, finds its version.
What depends on the registry's state (version number, who was champion, the decision) is written to MLflow and
returned, never to a DVC output.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import GanpipeError
from .gate import Decision, Scores, decide, metric_of
from .package import digest_of_package, log_model
from .runlog import MAX_TAG_LENGTH, clean_key, shorten
from .settings import RegisterSettings
from .tracking import Tracker, patiently

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.logged_model import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER = "challenger"
CHAMPION = "champion"
CONTENT_TAG = "ganpipe.content"
METRICS_TAG = "ganpipe.metrics"
PROTOCOL_TAG = "ganpipe.protocol"
DECISION_TAG = "ganpipe.decision"
GATE_TAG = "ganpipe.gate"

Rescore = Callable[["ModelVersion"], Mapping[str, float]]


@dataclass(frozen=True)
class Registration:
    """What came of registering.

    Attributes:
        version: number of the model version.
        uri: `models:/<name>/<version>`.
        alias_uri: `models:/<name>@<alias>` of its highest alias, or `uri` where it has none.
        aliases: that point to it now, sorted.
        decision: what the gate says, and why.
        created: a new version was made; false where the same content was registered before.
        champion: version number of the champion now, None where there is none.
    """

    version: int
    uri: str
    alias_uri: str
    aliases: list[str]
    decision: Decision
    created: bool
    champion: int | None
    moved: list[str] = field(default_factory=list)
    """Sentences that say which aliases moved."""


def content_digest(package_digest: str, metrics: Mapping[str, float], protocol_hash: str) -> str:
    """Hex digest of what a version is: package, metrics and their protocol."""
    text = json.dumps([package_digest, dict(metrics), protocol_hash], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def register(
    package_dir: Path,
    metrics: Mapping[str, float],
    protocol_hash: str,
    settings: RegisterSettings,
    tracker: Tracker,
    run_id: str,
    rescore: Rescore,
    tags: Mapping[str, str] | None = None,
) -> Registration:
    """Register the package, decide, and move the aliases.

    Args:
        package_dir: made by `build_package`.
        metrics: of the evaluation, by name.
        protocol_hash: of the protocol they were measured under.
        run_id: the MLflow run that the model belongs to.
        rescore: measures the champion again under this protocol; called only where its own numbers have another one,
            or lack the gate's metric.
        tags: more tags for the model version (licence, digests, commit).

    Raises:
        GanpipeError: MLflow does not answer, or a metric that params.yaml names was not measured.
    """
    tracker.check()
    client = tracker.client()
    name = settings.model_name
    # What params.yaml asks for and was not measured is found before anything is written.
    decide(Scores("the challenger", metrics, protocol_hash), None, settings)
    content = content_digest(digest_of_package(package_dir), metrics, protocol_hash)
    version = find_version(client, tracker, name, content)
    created = version is None
    if version is None:
        version = _create_version(
            client, tracker, package_dir, name, content, metrics, protocol_hash, run_id, tags or {}
        )
    champion = by_alias(client, tracker, name, CHAMPION)
    gate = hashlib.sha256(settings.model_dump_json(exclude={"experiment"}).encode()).hexdigest()
    decided = _earlier_decision(version, gate) if champion is not None else None
    if decided is not None:
        return _result(client, tracker, name, version, decided, created, [])
    decision = _decide(client, tracker, version, champion, metrics, protocol_hash, settings, rescore)
    moved = _move_aliases(client, tracker, name, version, decision)
    _write_decision(client, tracker, name, version, decision, gate)
    return _result(client, tracker, name, version, decision, created, moved)


def find_version(client: MlflowClient, tracker: Tracker, name: str, content: str) -> ModelVersion | None:
    """The version of the model `name` that has this content, the oldest if there are several."""
    condition = f"name = '{name.replace(chr(39), chr(39) * 2)}' and tags.`{CONTENT_TAG}` = '{content}'"
    found = patiently(lambda: list(client.search_model_versions(condition)), tracker.uri)
    ready = sorted((item for item in found if item.status == "READY"), key=lambda item: int(item.version))
    return client.get_model_version(name, ready[0].version) if ready else None


def by_alias(client: MlflowClient, tracker: Tracker, name: str, alias: str) -> ModelVersion | None:
    """The version that an alias points to, None where the model has no such alias."""
    model = patiently(lambda: client.get_registered_model(name), tracker.uri)
    number = {key: str(value) for key, value in model.aliases.items()}.get(alias)
    return None if number is None else patiently(lambda: client.get_model_version(name, number), tracker.uri)


def _ensure_model(client: MlflowClient, tracker: Tracker, name: str) -> None:
    def ensure() -> None:
        if client.search_registered_models(f"name = '{name}'"):
            return
        try:
            client.create_registered_model(name, description="Generators trained by ganpipe.")
        except Exception:
            if not client.search_registered_models(f"name = '{name}'"):  # unless another process was faster
                raise

    patiently(ensure, tracker.uri)


def _create_version(
    client: MlflowClient,
    tracker: Tracker,
    package_dir: Path,
    name: str,
    content: str,
    metrics: Mapping[str, float],
    protocol_hash: str,
    run_id: str,
    more_tags: Mapping[str, str],
) -> ModelVersion:
    description = json.loads((package_dir / "model.json").read_text())
    _ensure_model(client, tracker, name)
    tags = {
        **more_tags,
        CONTENT_TAG: content,
        METRICS_TAG: json.dumps(dict(metrics), sort_keys=True),
        PROTOCOL_TAG: protocol_hash,
        "ganpipe.gan": description["gan"],
        "ganpipe.run_key": description["run_key"],
        "ganpipe.licence": description["licence"],
        **{f"ganpipe.digest.{key}": value for key, value in description["digests"].items()},
        **{f"metric.{key}": f"{value:.6g}" for key, value in metrics.items()},
    }
    tags = {clean_key(key): shorten(str(value), MAX_TAG_LENGTH) for key, value in tags.items()}
    model = patiently(lambda: _logged_model(client, run_id, package_dir, description["gan"], tags), tracker.uri)
    source = f"models:/{model.model_id}"

    def create() -> ModelVersion:
        with _as_default(tracker.uri):
            return client.create_model_version(name, source, run_id, tags, model_id=model.model_id)

    return patiently(create, tracker.uri)


@contextmanager
def _as_default(uri: str) -> Iterator[None]:
    """A database's registry looks `models:/…` up in the process's default tracking URI, whatever its own one is."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _logged_model(
    client: MlflowClient, run_id: str, package_dir: Path, gan: str, tags: Mapping[str, str]
) -> LoggedModel:
    """The model that an earlier attempt logged for the same content, else a new one."""
    experiment = client.get_run(run_id).info.experiment_id
    condition = f"tags.`{CONTENT_TAG}` = '{tags[CONTENT_TAG]}'"
    found = [item for item in client.search_logged_models([experiment], condition) if str(item.status) == "READY"]
    return found[0] if found else log_model(client, run_id, package_dir, clean_key(gan), tags)


def scores_of(version: ModelVersion) -> Scores:
    """The metrics and protocol that a version was registered with.

    Raises:
        GanpipeError: it was not registered by ganpipe.
    """
    if METRICS_TAG not in version.tags:
        raise GanpipeError(
            f"version {version.version} of {version.name} has no tag {METRICS_TAG!r}: ganpipe did not register it; "
            f"remove its alias {CHAMPION!r} or choose another register.model_name"
        )
    return Scores(
        f"version {version.version}", json.loads(version.tags[METRICS_TAG]), version.tags.get(PROTOCOL_TAG, "unknown")
    )


def _decide(
    client: MlflowClient,
    tracker: Tracker,
    version: ModelVersion,
    champion: ModelVersion | None,
    metrics: Mapping[str, float],
    protocol_hash: str,
    settings: RegisterSettings,
    rescore: Rescore,
) -> Decision:
    challenger = Scores(f"version {version.version}", metrics, protocol_hash)
    if champion is None:
        return decide(challenger, None, settings)
    if int(champion.version) == int(version.version):
        checked = decide(challenger, None, settings)
        return Decision(checked.passed, False, [*checked.reasons[:-1], f"{challenger.name} is the champion already."])
    if not decide(challenger, None, settings).passed:
        return decide(challenger, None, settings)  # spares scoring the champion again
    scores, note = scores_of(champion), []
    if scores.protocol != protocol_hash or settings.metric not in scores.metrics:
        tag = f"ganpipe.rescored.{protocol_hash[:16]}"
        if tag in champion.tags:
            values = json.loads(champion.tags[tag])
        else:
            values = {key: float(value) for key, value in rescore(champion).items()}
            text = json.dumps(values, sort_keys=True)
            patiently(lambda: client.set_model_version_tag(champion.name, champion.version, tag, text), tracker.uri)
        note = [
            f"{scores.name} had been measured under another protocol ({scores.protocol[:12]}), "
            f"so it was scored again under {protocol_hash[:12]}."
        ]
        scores = Scores(scores.name, values, protocol_hash)
        metric_of(scores, settings.metric, "register.metric")
    decision = decide(challenger, scores, settings)
    return Decision(decision.passed, decision.promote, [*note, *decision.reasons])


def _earlier_decision(version: ModelVersion, gate: str) -> Decision | None:
    """What was decided of this version under the same settings. It stands: else registering again would undo a
    roll back."""
    if version.tags.get(GATE_TAG) != gate or DECISION_TAG not in version.tags:
        return None
    values: dict[str, Any] = json.loads(version.tags[DECISION_TAG])
    return Decision(values["passed"], values["promote"], values["reasons"])


def _move_aliases(
    client: MlflowClient, tracker: Tracker, name: str, version: ModelVersion, decision: Decision
) -> list[str]:
    moved = []
    challenger = by_alias(client, tracker, name, CHALLENGER)
    newest = challenger is None or int(challenger.version) < int(version.version)
    if decision.passed and newest:
        moved.append(move_alias(client, tracker, name, CHALLENGER, int(version.version), decision.text))
    if decision.promote:
        moved.append(move_alias(client, tracker, name, CHAMPION, int(version.version), decision.text))
    return [sentence for sentence in moved if sentence]


def move_alias(client: MlflowClient, tracker: Tracker, name: str, alias: str, to: int, why: str) -> str:
    """Point `alias` to version `to` and leave a trail: one tag on the registered model a change, in order of time.

    Returns:
        A sentence that says what moved; empty where the alias pointed there already.
    """
    before = by_alias(client, tracker, name, alias)
    if before is not None and int(before.version) == to:
        return ""
    now = datetime.now(UTC)
    trail = {
        "alias": alias,
        "at": now.isoformat(timespec="milliseconds"),
        "by": _who(),
        "from": None if before is None else int(before.version),
        "to": to,
        "why": why,
    }
    key = f"ganpipe.trail.{now:%Y%m%dT%H%M%S.%fZ}.{alias}"
    patiently(lambda: client.set_registered_model_alias(name, alias, str(to)), tracker.uri)
    patiently(lambda: client.set_registered_model_tag(name, key, json.dumps(trail, sort_keys=True)), tracker.uri)
    origin = "" if before is None else f" from version {before.version}"
    return f"{alias} moved{origin} to version {to}."


def trail_of(client: MlflowClient, name: str) -> list[dict[str, Any]]:
    """All moves of aliases of the model `name`, oldest first: alias, from, to, by, at, why."""
    tags = client.get_registered_model(name).tags
    return [json.loads(tags[key]) for key in sorted(tags) if key.startswith("ganpipe.trail.")]


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def _write_decision(
    client: MlflowClient, tracker: Tracker, name: str, version: ModelVersion, decision: Decision, gate: str
) -> None:
    values = {"passed": decision.passed, "promote": decision.promote, "reasons": decision.reasons}
    written = {DECISION_TAG: json.dumps(values, sort_keys=True), "ganpipe.reasons": decision.text, GATE_TAG: gate}
    patiently(lambda: client.update_model_version(name, version.version, decision.text), tracker.uri)
    for key, value in written.items():  # the gate's tag last: it says that all is done
        patiently(partial(client.set_model_version_tag, name, version.version, key, value), tracker.uri)


def _result(
    client: MlflowClient,
    tracker: Tracker,
    name: str,
    version: ModelVersion,
    decision: Decision,
    created: bool,
    moved: list[str],
) -> Registration:
    model = patiently(lambda: client.get_registered_model(name), tracker.uri)
    numbers = {alias: int(number) for alias, number in model.aliases.items()}
    number = int(version.version)
    aliases = sorted(alias for alias, target in numbers.items() if target == number)
    uri = f"models:/{name}/{number}"
    best = next((alias for alias in (CHAMPION, CHALLENGER) if alias in aliases), None)
    alias_uri = uri if best is None else f"models:/{name}@{best}"
    return Registration(number, uri, alias_uri, aliases, decision, created, numbers.get(CHAMPION), moved)
