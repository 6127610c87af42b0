"""register: the generator as a self-contained MLflow model version; the gate decides which alias it gets."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .. import environment
from ..data.manifest import read_manifest
from ..evaluation.settings import EvaluateSettings
from ..gans.base import Progress
from ..params import load_params
from ..registry.package import build_package, download_package
from ..registry.pages import version_page
from ..registry.registration import register
from ..registry.served_model import Generator, package_files
from ..registry.tracking import Tracker
from .common import (
    EVALUATE,
    PACKAGE,
    REFERENCE,
    SHARDS,
    TRAIN,
    TUNE,
    leave_note,
    read_json,
    require_no_arguments,
    run_tags,
)
from .evaluate import measure

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def main(argv: list[str]) -> int:
    require_no_arguments(argv, "register")
    params = load_params()
    manifest = read_manifest(SHARDS)
    trained = read_json(TRAIN / "model.json", made_by="train")
    metrics = read_json(EVALUATE / "metrics.json", made_by="evaluate")
    protocol = read_json(EVALUATE / "protocol.json", made_by="evaluate")
    build_package(TRAIN, PACKAGE, metrics=metrics, protocol=protocol, licence=manifest.licence)
    tracker = Tracker.at(environment.home(), params.register_.experiment)
    with tracker.run("train", trained["run_key"], name=f"train {trained['gan']}") as run:
        registration = register(
            PACKAGE,
            metrics,
            protocol["hash"],
            params.register_,
            tracker,
            run.run_id,
            functools.partial(rescore, settings=params.evaluate, tracker=tracker),
            tags=run_tags(params, manifest, [SHARDS, REFERENCE, TUNE, TRAIN, EVALUATE]),
        )
    page = version_page(tracker, params.register_.model_name, registration.version)
    leave_note("register", about=registration.decision.text, links={"MLflow model version": page})
    found = "registered" if registration.created else "registered before"
    print(f"{registration.uri} {found}; aliases: {', '.join(registration.aliases) or 'none'}")
    for sentence in [*registration.decision.reasons, *registration.moved]:
        print(f"  {sentence}")
    return 0


def rescore(version: ModelVersion, settings: EvaluateSettings, tracker: Tracker) -> Mapping[str, float]:
    """Measure a registered version again, under this run's protocol."""
    print(f"version {version.version} was measured under another protocol; measuring it again")
    with tempfile.TemporaryDirectory() as folder:
        generator = Generator(package_files(download_package(tracker, version, Path(folder))))
        description = generator.description
        return measure(generator.gan, Progress(**description["progress"]), settings, description["averaged"]).metrics
