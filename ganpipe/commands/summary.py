"""summary: what the last run made, and where its outputs are."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .. import environment
from ..evaluation import figures, metrics
from ..evaluation.protocol import Protocol
from ..packaging.card import SAMPLES_FILE
from ..packaging.package import digest_of_package
from ..params import load_params
from ..registry.registration import content_digest
from ..registry.versions import CHAMPION, explain_no_champion, find_version, version_by_alias
from ..stages.common import CURVES, EVALUATE, PACKAGE, TRAIN, read_json
from ..tracking.links import run_page, version_page
from ..tracking.replay import runs_with_unsent_records
from ..tracking.runs import Tracker, get_run_or_none

RUN_LINK = "MLflow run of the training"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ganpipe summary", description=__doc__)
    parser.add_argument("--json", action="store_true", help="as JSON; {} where nothing is registered yet")
    if parser.parse_args(argv).json:
        print(json.dumps(facts() if PACKAGE.exists() else {}, sort_keys=True))
        return 0
    found = facts()
    print(f"model    {_model(found)}")
    if found["version"] is not None and found["champion"] not in (None, found["version"]):
        print(f"         the champion is version {found['champion']}")
    if found["no_champion"]:
        print(f"         {found['no_champion']}")
    value = found["metrics"].get(found["metric"])
    beside = metrics.beside_of(found["metric"], found["metrics"])
    shown = "was not measured" if value is None else f"{value:.2f}{f' ({beside})' if beside else ''}"
    print(f"{found['metric']} {shown}  {found['protocol']}")
    print(f"samples  {EVALUATE / figures.FOLDER / SAMPLES_FILE}, while training: {TRAIN / 'samples'}/")
    print(f"curves   {TRAIN / CURVES}/: `dvc plots show` draws them")
    if found["version"] is not None and RUN_LINK not in found["links"]:
        print("MLflow   no longer has the run of the training; the model version is still there")
    if left := runs_with_unsent_records(environment.home()):
        print(f"MLflow   has not taken all records of {len(left)} runs yet: `ganpipe replay` sends them")
    return 0


def facts() -> dict[str, Any]:
    """Facts about the outputs in this checkout and about their version in the registry.

    Returns:
        `model_name`, `version` (None if this registry does not have it), `aliases`, `champion` (number of the
        champion's version), `no_champion` (why there is no champion, and what to do; empty if there is one), `metric`
        (the gate's), `metrics`, `told` (for each metric, which values are better and what it tells), `protocol` (one
        line), `links` (title -> address of a page).

    Raises:
        GanpipeError: a stage has not run yet, or MLflow does not answer.
    """
    settings = load_params().register_
    values = read_json(EVALUATE / "metrics.json", made_by="evaluate")
    protocol = read_json(EVALUATE / "protocol.json", made_by="evaluate")
    protocol_hash = protocol.pop("hash")
    tracker = Tracker.at(environment.home(), settings.experiment)
    tracker.check()
    client = tracker.client()
    content = content_digest(digest_of_package(PACKAGE), values, protocol_hash)
    version = find_version(client, tracker, settings.model_name, content)
    champion = None if version is None else version_by_alias(client, tracker, settings.model_name, CHAMPION)
    why_no_champion = (
        explain_no_champion(client, tracker, settings.model_name) if version is not None and champion is None else ""
    )
    links = {}
    if version is not None:
        links["MLflow model version"] = version_page(tracker, settings.model_name, int(version.version))
        run = get_run_or_none(client, tracker, str(version.run_id))
        if run is not None:
            links[RUN_LINK] = run_page(tracker, run.info.run_id, run.info.experiment_id)
    return {
        "model_name": settings.model_name,
        "version": None if version is None else int(version.version),
        "aliases": [] if version is None else sorted(version.aliases),
        "champion": None if champion is None else int(champion.version),
        "no_champion": why_no_champion,
        "metric": settings.metric,
        "metrics": values,
        "told": metrics.descriptions(values),
        "protocol": Protocol.model_validate(protocol).text,
        "links": links,
    }


def _model(found: dict[str, Any]) -> str:
    name = found["model_name"]
    if found["version"] is None:
        return f"{name}: not in this registry; `dvc repro --force --single-item register` puts it there"
    shown = " ".join(f"@{alias}" for alias in found["aliases"]) or "no alias"
    return f"models:/{name}/{found['version']} {shown}"
