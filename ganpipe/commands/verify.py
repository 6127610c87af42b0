"""verify: whether this checkout holds what a registered version was made from: code, settings, data, environment."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import environment
from ..data.shards.manifest import verify as verify_shards
from ..errors import GanpipeError
from ..packaging.fetching import NotUsable
from ..packaging.package import digest_of_package, download_package
from ..params import Params, load_params
from ..registry.registration import content_digest
from ..registry.verification import Finding, compare, compare_value, verdict
from ..registry.versions import CHAMPION, CONTENT_TAG, measurement_of, version_of
from ..stages.common import SHARDS
from ..stages.train import searched, training_settings
from ..tracking import lineage
from ..tracking.connection import with_retries
from ..tracking.run_log import flatten
from ..tracking.runs import Tracker, get_run_or_none

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

NOT_TOLD = "(MLflow does not tell)"
WORDS = {
    "same": "this checkout holds what {} was made from",
    "differs": "this checkout does not hold what {} was made from",
    "unknown": "not everything that {} was made from is here to compare",
}


def main(argv: list[str]) -> int:
    """Exit code 0 if everything is the same, 1 if something differs or cannot be compared."""
    parser = argparse.ArgumentParser(prog="ganpipe verify", description=__doc__)
    parser.add_argument("version", nargs="?", default=CHAMPION, help="number or alias; default: champion")
    parser.add_argument("--model", help="registered model; default: register.model_name of params.yaml")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(argv)
    params = load_params()
    name = options.model or params.register_.model_name
    tracker = Tracker.at(environment.home(), params.register_.experiment)
    tracker.check()
    client = tracker.client()
    version = version_of(client, tracker, name, options.version.removeprefix("@"))
    findings = list(findings_of(client, tracker, version, params))
    whole = verdict(findings)
    if options.json:
        print(json.dumps({"verdict": whole, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        print("\n".join(finding.text for finding in findings))
        print(f"{whole}: {WORDS[whole].format(f'models:/{name}/{version.version}')}")
    return 0 if whole == "same" else 1


def findings_of(client: MlflowClient, tracker: Tracker, version: ModelVersion, params: Params) -> Iterator[Finding]:
    """The findings of all comparisons, the most important first.

    Raises:
        GanpipeError: the version was not registered by ganpipe.
    """
    tags = version.tags
    yield _package(tracker, version)
    run = get_run_or_none(client, tracker, str(version.run_id))
    if run is None:
        gone = f"the training's run {version.run_id} is gone from MLflow"
        yield from (Finding(part, "", "unknown", NOT_TOLD, gone) for part in ("code", "settings"))
    else:
        yield _code(run.data.tags)
        yield from _settings(run, params)
    try:
        data: str | None = verify_shards(SHARDS).digest
        problem = ""
    except GanpipeError as error:
        data, problem = None, str(error)
    yield _against_tag("data", tags, "ganpipe.data.digest", data, problem)
    registered = {key: value for key, value in tags.items() if key.startswith("dvc.")}
    here = lineage.dvc_tags(Path.cwd(), [Path("artifacts")])
    yield from compare("outputs", registered, {key: here[key] for key in registered if key in here})
    environment = None if run is None else _environment(client, tracker, run)
    if environment is None:
        gone = f"MLflow has no readable {lineage.ENVIRONMENT_FILE} of the training's run"
        yield Finding("environment", "", "unknown", NOT_TOLD, gone)
    else:
        yield from compare("environment", environment, _flat_environment(lineage.environment()))


def _package(tracker: Tracker, version: ModelVersion) -> Finding:
    """The files that MLflow keeps, compared with the digest that was registered."""
    measurement = measurement_of(version)
    with tempfile.TemporaryDirectory() as folder:
        try:
            digest = digest_of_package(download_package(tracker, version, Path(folder)))
        except NotUsable as error:
            return _against_tag("package", version.tags, CONTENT_TAG, None, str(error))
    return _against_tag(
        "package", version.tags, CONTENT_TAG, content_digest(digest, measurement.metrics, measurement.protocol)
    )


def _against_tag(part: str, tags: Mapping[str, str], tag: str, here: str | None, why_not: str = "") -> Finding:
    if tag not in tags:
        return Finding(part, "", "unknown", NOT_TOLD, here or why_not)
    return compare_value(part, tags[tag], here, why_not)


def _code(tags: dict[str, str]) -> Finding:
    """The files that git tracks, compared with the commit of the training."""
    commit = tags.get("ganpipe.git.commit", "none")
    if tags.get("ganpipe.git.dirty") != "false":
        return compare_value("code", f"{commit} with edits", None, "git does not know which edits")
    edited = lineage.edited_since(Path.cwd(), commit)
    if edited is None:
        return compare_value("code", commit, None, lineage.commit_problem(Path.cwd()) or "no such commit: git fetch")
    others = f" and {len(edited) - 5} more" if len(edited) > 5 else ""
    return compare_value("code", commit, f"other files: {', '.join(edited[:5])}{others}" if edited else commit)


def _settings(run: Run, params: Params) -> list[Finding]:
    """The settings that the training's run logged, compared with those here. Both include the choice of the search."""
    try:
        here = {key: str(value) for key, value in flatten(training_settings(*searched(params))).items()}
    except GanpipeError as error:  # the search has not run here yet
        return [Finding("settings", "", "unknown", f"{len(run.data.params)} values", str(error))]
    sections = {key.split(".")[0] for key in here}
    registered = {key: value for key, value in run.data.params.items() if key.split(".")[0] in sections}
    return compare("settings", registered, here)


def _environment(client: MlflowClient, tracker: Tracker, run: Run) -> dict[str, str] | None:
    """The environment that the run recorded; None if the run no longer has that file, or it was overwritten."""
    run_id, name = run.info.run_id, lineage.ENVIRONMENT_FILE
    if name not in {item.path for item in with_retries(lambda: client.list_artifacts(run_id), tracker.uri)}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = with_retries(lambda: client.download_artifacts(run_id, name, folder), tracker.uri)
        try:
            return _flat_environment(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError:
            return None


def _flat_environment(found: dict[str, Any]) -> dict[str, str]:
    """The part of the environment that can be compared with another process's. Compute settings and numbers of CPUs are
    left out, because they follow from the settings, which are compared, too."""
    own = {lineage.COMPUTE_SETTINGS, *lineage.CPU_COUNTS}
    return {key: str(value) for key, value in flatten(found).items() if key.split(".")[0] not in own}
