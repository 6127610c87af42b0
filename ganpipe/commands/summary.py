"""summary: what the last run made, and where it is."""

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
from ..registry.versions import CHAMPION, by_alias, find_version, no_champion
from ..stages.common import CURVES, EVALUATE, PACKAGE, TRAIN, read_json
from ..tracking.links import run_page, version_page
from ..tracking.replay import waiting
from ..tracking.runs import Tracker, run_of

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
    shown = "was not measured" if value is None else f"{value:.2f}"
    print(f"{found['metric']} {shown}  {found['protocol']}")
    print(f"samples  {EVALUATE / figures.FOLDER / SAMPLES_FILE}, while training: {TRAIN / 'samples'}/")
    print(f"curves   {TRAIN / CURVES}/: `dvc plots show` draws them")
    if found["version"] is not None and RUN_LINK not in found["links"]:
        print("MLflow   no longer has the run of the training; the model version is still there")
    if left := waiting(environment.home()):
        print(f"MLflow   has not taken all records of {len(left)} runs yet: `ganpipe replay` sends them")
    return 0


def facts() -> dict[str, Any]:
    """What the outputs in this checkout came to, and what the registry says of them.

    Returns:
        `model_name`, `version` (None where this registry does not have it), `aliases`, `champion` (its version),
        `no_champion` (why there is no champion, and what to do; empty where there is one), `metric` (the gate's),
        `metrics`, `told` (of each, which values are better and what it tells), `protocol` (one line), `links` (pages by
        title).

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
    champion = None if version is None else by_alias(client, tracker, settings.model_name, CHAMPION)
    nobody = no_champion(client, tracker, settings.model_name) if version is not None and champion is None else ""
    links = {}
    if version is not None:
        links["MLflow model version"] = version_page(tracker, settings.model_name, int(version.version))
        run = run_of(client, tracker, str(version.run_id))
        if run is not None:
            links[RUN_LINK] = run_page(tracker, run.info.run_id, run.info.experiment_id)
    return {
        "model_name": settings.model_name,
        "version": None if version is None else int(version.version),
        "aliases": [] if version is None else sorted(version.aliases),
        "champion": None if champion is None else int(champion.version),
        "no_champion": nobody,
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
