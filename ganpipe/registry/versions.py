"""Model versions as MLflow's registry holds them: found by content, alias or number, listed, and described."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import GanpipeError
from ..redaction import without_password
from ..section import nearest
from ..tracking.connection import with_retries
from ..tracking.runs import Tracker
from ..tracking.seeds import PROTOCOL_TAG
from .gate import Measurement, NotComparable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHALLENGER = "challenger"
CHAMPION = "champion"
CONTENT_TAG = "ganpipe.content"
METRICS_TAG = "ganpipe.metrics"
INTERVALS_TAG = "ganpipe.intervals"
DECISION_TAG = "ganpipe.decision"
GATE_TAG = "ganpipe.gate"
REASONS_TAG = "ganpipe.reasons"
CARD_TAG = "ganpipe.card"
HOW_TO_REGISTER = (
    "`make run` makes the first one; where it has nothing to do, `dvc repro --force --single-item register` does"
)
"""DVC skips the stage `register` if its outputs are unchanged, even if MLflow has lost the version meanwhile."""


def quoted(name: str) -> str:
    """`name` as a quoted string in MLflow's search conditions."""
    return "'" + name.replace("'", "''") + "'"


def registered_model(client: MlflowClient, tracker: Tracker, name: str) -> RegisteredModel:
    """The registered model `name`.

    Raises:
        GanpipeError: there is no such model; the message names the most similar one.
    """
    found = with_retries(lambda: client.search_registered_models(f"name = {quoted(name)}"), tracker.uri)
    if not found:
        models = with_retries(lambda: client.search_registered_models(max_results=100), tracker.uri)
        names = [model.name for model in models]
        raise GanpipeError(
            f"MLflow at {without_password(tracker.uri)} has no registered model {name!r}; "
            + (nearest(name, names) if names else HOW_TO_REGISTER)
        )
    return found[0]


def is_registered(client: MlflowClient, tracker: Tracker, name: str) -> bool:
    """Whether there is a registered model of this name."""
    return bool(with_retries(lambda: client.search_registered_models(f"name = {quoted(name)}"), tracker.uri))


def find_version(client: MlflowClient, tracker: Tracker, name: str, content: str) -> ModelVersion | None:
    """The version of the model `name` that has this content, the oldest if there are several."""
    condition = f"name = {quoted(name)} and tags.`{CONTENT_TAG}` = '{content}'"
    found = with_retries(lambda: list(client.search_model_versions(condition)), tracker.uri)
    ready = sorted((item for item in found if item.status == "READY"), key=lambda item: int(item.version))
    return with_retries(lambda: client.get_model_version(name, ready[0].version), tracker.uri) if ready else None


def version_by_alias(client: MlflowClient, tracker: Tracker, name: str, alias: str) -> ModelVersion | None:
    """The version that an alias points to; None if the model has no such alias."""
    model = with_retries(lambda: client.get_registered_model(name), tracker.uri)
    number = {key: str(value) for key, value in model.aliases.items()}.get(alias)
    return None if number is None else with_retries(lambda: client.get_model_version(name, number), tracker.uri)


def all_versions(client: MlflowClient, tracker: Tracker, name: str) -> list[ModelVersion]:
    """All versions of the model `name`, oldest first; without their aliases, because MLflow's search omits them."""
    condition, found = f"name = {quoted(name)}", list[Any]()
    token: str | None = None
    while True:
        page = with_retries(partial(client.search_model_versions, condition, page_token=token), tracker.uri)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda item: int(item.version))


def version_of(client: MlflowClient, tracker: Tracker, name: str, chosen: int | str) -> ModelVersion:
    """A version by number or alias.

    Raises:
        GanpipeError: the model, the version or the alias does not exist; the message lists those that do.
    """
    model = registered_model(client, tracker, name)
    aliases = {alias: str(number) for alias, number in model.aliases.items()}
    number = aliases.get(str(chosen), str(chosen))
    versions = {item.version: item for item in all_versions(client, tracker, name)}
    if chosen in (CHAMPION, CHALLENGER) and chosen not in aliases and versions:
        newest = max(versions.values(), key=lambda item: int(item.version))
        raise GanpipeError(
            explain_missing_alias(str(chosen), name, int(newest.version), newest.tags.get(REASONS_TAG, ""))
        )
    if str(number) not in {str(key) for key in versions}:
        there = f"versions: {', '.join(map(str, versions)) or 'none'}; aliases: {', '.join(sorted(aliases)) or 'none'}"
        what = f"version {chosen}" if str(chosen).isdigit() else f"alias {str(chosen)!r}"
        raise GanpipeError(f"{name} has no {what}; {there}")
    return with_retries(lambda: client.get_model_version(name, number), tracker.uri)


def explain_missing_alias(alias: str, name: str, newest: int, why: str) -> str:
    """The message which explains why no version of the model `name` has the `alias` (champion or challenger), and what
    to do.

    Args:
        newest: number of the model's newest version.
        why: what the gate said of that version; empty if it is not known.
    """
    said = f"when it was registered, the gate said: {why}" if why else "what the gate said of it is not known."
    uri = f"models:/{name}/{newest}"
    return (
        f"{name} has no {alias}: its newest version is {newest}, and {said} The gate's conditions are "
        f"`register.conditions` in params.yaml; `ganpipe sample --model {uri}` and `ganpipe serve --model {uri}` show "
        f"that version's images, and `ganpipe promote --model {name} --version {newest} --force --reason WHY` makes it "
        "the champion nevertheless"
    )


def explain_no_champion(client: MlflowClient, tracker: Tracker, name: str) -> str:
    """`explain_missing_alias` for the alias `champion` of a model that has versions."""
    newest = all_versions(client, tracker, name)[-1]
    return explain_missing_alias(CHAMPION, name, int(newest.version), newest.tags.get(REASONS_TAG, ""))


def json_tag(version: ModelVersion, tag: str) -> dict[str, Any] | None:
    """The JSON object that ganpipe wrote into a tag; None if the tag is missing or holds something else."""
    try:
        values = json.loads(version.tags[tag])
    except (KeyError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def metrics_of(version: ModelVersion) -> dict[str, float] | None:
    """The metrics that a version was registered with; None if it has no readable tag of them."""
    values = json_tag(version, METRICS_TAG)
    numbers = {} if values is None else {key: value for key, value in values.items() if isinstance(value, int | float)}
    return numbers or None


def measurement_of(version: ModelVersion) -> Measurement:
    """The metrics and protocol that a version was registered with.

    Raises:
        NotComparable: the version has no readable tag of its metrics.
    """
    metrics = metrics_of(version)
    if metrics is None:
        raise NotComparable(
            f"version {version.version} of {version.name} has no numbers in its tag {METRICS_TAG!r}: ganpipe did not "
            f"register it, or the tag was edited; remove its alias {CHAMPION!r} or choose another register.model_name"
        )
    intervals = {
        name: (float(found[0]), float(found[1])) for name, found in (json_tag(version, INTERVALS_TAG) or {}).items()
    }
    return Measurement(f"version {version.version}", metrics, version.tags.get(PROTOCOL_TAG, "unknown"), intervals)


@dataclass(frozen=True)
class VersionInfo:
    """One version, for people and programs; plain data.

    Attributes:
        created_at: ISO 8601, UTC.
        metrics: as measured before the version was registered, under `protocol` (a hash).
        commit: git commit of the checkout that registered the version.
        dirty: whether tracked files differed from that commit.
        why: what the gate said.
        start: the version, package or checkpoint whose weights the training started from; empty if it started from
            random weights.
    """

    version: int
    aliases: list[str]
    created_at: str
    gan: str
    metrics: Mapping[str, float]
    protocol: str
    data_source: str
    data_digest: str
    licence: str
    commit: str
    dirty: bool
    run_id: str
    why: str
    uri: str
    start: str


def describe_versions(client: MlflowClient, tracker: Tracker, name: str) -> list[VersionInfo]:
    """All versions of the model `name`, newest first.

    Raises:
        GanpipeError: there is no such model.
    """
    aliases = registered_model(client, tracker, name).aliases
    return [
        _info(item, sorted(alias for alias, number in aliases.items() if int(number) == int(item.version)))
        for item in reversed(all_versions(client, tracker, name))
    ]


def _info(item: ModelVersion, aliases: list[str]) -> VersionInfo:
    tags: dict[str, Any] = item.tags
    return VersionInfo(
        version=int(item.version),
        aliases=aliases,
        created_at=datetime.fromtimestamp(item.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        gan=tags.get("ganpipe.gan", ""),
        metrics=metrics_of(item) or {},
        protocol=tags.get(PROTOCOL_TAG, ""),
        data_source=tags.get("ganpipe.data.source", ""),
        data_digest=tags.get("ganpipe.digest.data", ""),
        licence=tags.get("ganpipe.licence", ""),
        commit=tags.get("ganpipe.git.commit", ""),
        dirty=tags.get("ganpipe.git.dirty") == "true",
        run_id=item.run_id or "",
        why=tags.get(REASONS_TAG, ""),
        uri=f"models:/{item.name}/{item.version}",
        start=tags.get("ganpipe.start.from", ""),
    )
