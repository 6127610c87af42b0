"""register: the generator as a self-contained MLflow model version; the gate decides which alias it gets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import environment
from ..data.shards.manifest import Manifest, read_manifest
from ..evaluation import figures
from ..evaluation.evaluate import INTERVALS, METRICS
from ..gans.base import Progress
from ..packaging.card import CARD_FILE, SAMPLES_FILE, card, card_summary
from ..packaging.output_shape import shape_of_package
from ..packaging.package import PackageFacts, build_package, download_package
from ..packaging.served_model import Generator, read_description
from ..params import Params, load_params
from ..registry.open_model import load
from ..registry.registration import Candidate, register
from ..registry.versions import explain_no_champion
from ..tracking import lineage
from ..tracking.links import version_page
from ..tracking.runs import Tracker
from .common import EVALUATE, PACKAGE, REFERENCE, SHARDS, TRAIN, TUNE, leave_note, read_json, require_no_arguments
from .evaluate import measure, protocol_here
from .runs import run_tags

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

TRAIN_SETTINGS = ("batch_size", "ema_half_life", "ema_ramp_up", "max_gradient_norm", "precision", "seed", "select")
"""Of the section `train`: what the model card tells, and dvc.yaml names among the stage's params."""


def main(argv: list[str]) -> int:
    require_no_arguments(argv, "register", __doc__)
    params = load_params()
    if params.register_.require_commit:
        lineage.require_commit(Path.cwd())
    manifest = read_manifest(SHARDS)
    trained = read_json(TRAIN / "model.json", made_by="train")
    metrics = read_json(EVALUATE / METRICS, made_by="evaluate")
    intervals = read_json(EVALUATE / INTERVALS, made_by="evaluate")
    protocol = read_json(EVALUATE / "protocol.json", made_by="evaluate")
    text = card_of(params, manifest, trained, metrics, protocol, intervals)
    samples_png = EVALUATE / figures.FOLDER / SAMPLES_FILE
    facts = PackageFacts(metrics, protocol, manifest.licence, text, samples_png, manifest.names)
    build_package(TRAIN, PACKAGE, facts)
    tracker = Tracker.at(environment.home(), params.register_.experiment)
    with tracker.run("train", trained["run_key"], name=f"train {trained['gan']}") as run:
        run.set_tags({"mlflow.note.content": card_summary(text)})
        run.log_artifact(PACKAGE / CARD_FILE)
        run.log_artifact(PACKAGE / SAMPLES_FILE)
        candidate = Candidate(
            PACKAGE,
            metrics,
            protocol["hash"],
            run.run_id,
            tags={
                **run_tags(params, manifest, [SHARDS, REFERENCE, TUNE, TRAIN, EVALUATE], trained.get("start")),
                **shape_of_package(read_description(PACKAGE / "model.json"), manifest.classes).tag,
            },
            intervals={name: (low, high) for name, (low, high) in intervals.items()},
        )
        remeasure = VersionMeasurement(params, tracker).measure
        registration = register(candidate, params.register_, tracker, remeasure)
    page = version_page(tracker, params.register_.model_name, registration.version)
    about = registration.decision.text
    if registration.champion is None:
        about = explain_no_champion(tracker.client(), tracker, params.register_.model_name)
    leave_note("register", about=about, links={"MLflow model version": page})
    found = "registered" if registration.created else "registered before"
    print(f"{registration.uri} {found}; aliases: {', '.join(registration.aliases) or 'none'}")
    for sentence in [*registration.decision.reasons, *registration.moved]:
        print(f"  {sentence}")
    if registration.champion is None:
        print(f"  {about}.")
    return 0


def card_of(
    params: Params,
    manifest: Manifest,
    trained: Mapping[str, Any],
    metrics: Mapping[str, float],
    protocol: Mapping[str, Any],
    intervals: Mapping[str, Sequence[float]],
) -> str:
    """The model card of what this run made."""
    shown = ("source", "description", "homepage", "licence", "digest", "classes")
    data = {
        **{key: getattr(manifest, key) for key in shown},
        **{f"num_{split}": manifest.num_samples(split) for split in ("train", "validation")},
    }
    training = {key: getattr(params.train, key) for key in TRAIN_SETTINGS}
    return card(trained, data, training, metrics, protocol, intervals)


class VersionMeasurement:
    """Measures registered versions again, under this checkout's protocol."""

    def __init__(self, params: Params, tracker: Tracker) -> None:
        self._params = params
        self._tracker = tracker

    def measure(self, version: ModelVersion) -> Mapping[str, float]:
        """Metrics of a version."""
        print(f"version {version.version} was measured under another protocol; measuring it again")
        with self._generator(version) as generator:
            description = generator.description
            progress = Progress(**description["progress"])
            averaged = description["averaged"]
            return measure(generator.gan, progress, self._params, averaged, with_figures=False).metrics

    def protocol(self, version: ModelVersion) -> str:
        """Hash of the protocol under which `measure` measures a version."""
        with self._generator(version) as generator:
            return protocol_here(generator.gan, self._params, generator.description["averaged"]).hash

    @contextmanager
    def _generator(self, version: ModelVersion) -> Iterator[Generator]:
        with tempfile.TemporaryDirectory() as folder:
            name = f"models:/{version.name}/{version.version}"
            yield load(name, download_package(self._tracker, version, Path(folder)))
