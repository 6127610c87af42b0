"""evaluate: the generator's metrics with their protocol, and figures."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch

from .. import environment
from ..data.loading.dataset import Dataset
from ..data.loading.opening import open_dataset
from ..data.shards.manifest import Manifest, read_manifest
from ..errors import GanpipeError
from ..evaluation import metrics
from ..evaluation.evaluate import Evaluation, evaluate
from ..evaluation.extractors import Extractor, load_extractor
from ..evaluation.measured import Subject
from ..evaluation.measuring import protocol_of
from ..evaluation.protocol import Protocol
from ..evaluation.reference import Reference, load_reference, reference_protocol, require_images
from ..evaluation.sampling import device_and_dtype
from ..fields import FieldSpec
from ..gans import load
from ..gans.base import DataSpec, Gan, Progress
from ..packaging.served_model import load_weights
from ..params import Params, load_params
from ..registry.gate import NotComparable
from ..tracking import lineage
from ..tracking.links import run_page
from ..tracking.run_log import RunLog
from ..tracking.runs import Tracker
from ..tracking.seeds import PROTOCOL_TAG
from .common import (
    EVALUATE,
    REFERENCE,
    SHARDS,
    TRAIN,
    leave_note,
    read_json,
    require_no_arguments,
    shards_here,
    verified_shards,
)
from .runs import recipe_tags
from .work import clear_done

_MOST_NAMED = 5


def main(argv: list[str]) -> int:
    require_no_arguments(argv, "evaluate", __doc__)
    params = load_params()
    clear_done()  # this stage runs once DVC has what the training made
    require_images(verified_shards(params), params.evaluate)
    trained = read_json(TRAIN / "model.json", made_by="train")
    gan = trained_gan(trained)
    tracker = Tracker.at(environment.home(), params.register_.experiment)
    key, progress = trained["run_key"], Progress(**trained["progress"])
    protocol = protocol_here(gan, params, trained["averaged"])
    # MLflow is reached before the long work: if it is away afterwards, the work need not be done again.
    with tracker.run("train", key, name=f"train {trained['gan']}") as training:
        # A run of its own, a child of the training's: the same generator may be measured under other protocols, too.
        name = f"evaluate {trained['gan']} {protocol.hash}"
        with tracker.run("evaluate", f"{key}-{protocol.hash}", name=name, parent_run_id=training.run_id) as run:
            evaluation = measure(gan, progress, params, trained["averaged"])
            evaluation.save(EVALUATE)
            _log(evaluation, run, progress.images_seen, recipe_tags(params, read_manifest(SHARDS)))
            links = {"MLflow run of the evaluation": run_page(tracker, run.run_id, run.experiment_id)}
            leave_note("evaluate", about=protocol.text, links=links, metrics=_told(evaluation))
    for name, value in evaluation.metrics.items():
        print(f"{name} {value:g}{_between(evaluation.intervals.get(name))}")
    print(protocol.text)
    if text := unmeasured(evaluation):
        print(f"warning: {text}", file=sys.stderr)
    return 0


def _told(evaluation: Evaluation) -> dict[str, dict[str, str]]:
    """What each metric means, beside the values that 95 % of other samples have."""
    told = metrics.descriptions(evaluation.metrics)
    between = {name: _between(evaluation.intervals.get(name)).strip(" ()") for name in told}
    return {name: {"95 % of other samples": between[name], **found} for name, found in told.items()}


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:g} to {interval[1]:g})"


def unmeasured(evaluation: Evaluation) -> str:
    """A sentence on the classes whose FID cannot be measured; empty where there are none."""
    found = {name: measured for name, measured in evaluation.class_fids.items() if not measured.is_measured}
    if not found:
        return ""
    shown = [f"{name} ({fid.num_real} and {fid.num_generated})" for name, fid in list(found.items())[:_MOST_NAMED]]
    return (
        f"{len(found):,} of {len(evaluation.class_fids):,} classes have no FID of their own, which needs 2 real and 2 "
        f"generated images: {', '.join(shown)}{', ...' if len(found) > _MOST_NAMED else ''}; raise evaluate.num_real "
        "and evaluate.num_samples, or add images"
    )


def _log(evaluation: Evaluation, run: RunLog, images_seen: int, recipe: Mapping[str, str]) -> None:
    found = lineage.environment()
    own = {**lineage.environment_tags(found), **lineage.compute_tags(found)}
    run.set_tags({PROTOCOL_TAG: evaluation.protocol.hash, **recipe, **own})
    run.log_params({"protocol": evaluation.protocol.model_dump(mode="json")})
    run.log_metrics(evaluation.metrics, step=images_seen)
    for path in sorted(path for path in EVALUATE.rglob("*") if path.is_file()):
        folder = path.parent.relative_to(EVALUATE).as_posix()
        run.log_artifact(path, "" if folder == "." else folder)


def trained_gan(trained: dict[str, Any]) -> Gan:
    """The GAN that `train` left, able to sample.

    Raises:
        GanpipeError: its weights do not fit its networks.
    """
    gan_class = load(trained["gan"])
    config = gan_class.Config.model_validate(trained["config"])
    gan = gan_class(config, DataSpec.from_json(trained["data"])).to("cuda" if torch.cuda.is_available() else "cpu")
    try:
        load_weights(gan, safetensors.torch.load_file(TRAIN / "generator.safetensors"))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise GanpipeError(
            f"{TRAIN / 'generator.safetensors'}: {error}; run `dvc repro --force --single-item train`"
        ) from None
    return gan.eval()


def measure(gan: Gan, progress: Progress, params: Params, averaged: bool, with_figures: bool = True) -> Evaluation:
    """Evaluate `gan` against the reference that the stage `reference` left.

    Raises:
        NotComparable: it makes other images than the data are.
    """
    settings, shards = params.evaluate, shards_here(params)
    dataset, extractor, reference = _reference_set(gan, params)
    splits = {split: open_dataset(shards, split) for split in dataset.manifest.splits}
    training, held_out = splits["train"], splits.get("validation")
    subject = Subject(gan, progress, dataset, reference, extractor, settings, averaged, training, held_out)
    return evaluate(subject, with_figures)


def protocol_here(gan: Gan, params: Params, averaged: bool) -> Protocol:
    """The protocol under which `measure` measures `gan`."""
    return protocol_of(gan, _reference_set(gan, params)[2], params.evaluate, averaged=averaged)


def _reference_set(gan: Gan, params: Params) -> tuple[Dataset, Extractor, Reference]:
    require_fitting(gan, read_manifest(SHARDS))
    settings = params.evaluate
    dataset = open_dataset(shards_here(params), settings.split)
    extractor = load_extractor(settings, device_and_dtype(gan)[0])
    return dataset, extractor, load_reference(REFERENCE, reference_protocol(dataset, extractor, settings))


def require_fitting(gan: Gan, manifest: Manifest) -> None:
    """Return if a generator can be measured on this data: it has the fields that the GAN makes and is given, of
    the same kinds.

    Raises:
        NotComparable: names the field that differs.
    """
    origins = gan.origins(gan.config, gan.data)
    needed = {gan.data.main, *(origins[name].field for name in (gan.fields[0], *gan.given))}
    for name in sorted(needed):
        wanted, here = gan.data.fields[name], manifest.fields.get(name)
        # Compared as plain values, because the fields of a packaged GAN have the classes of its own code.
        if here is None or wanted.model_dump() != here.model_dump():
            raise NotComparable(
                f"the generator was made for {name}: {_in_words(wanted)}; the data in {SHARDS} have "
                f"{_in_words(here)}: check out the commit that `ganpipe models` names for it, and its data with "
                "`dvc checkout`"
            )


def _in_words(spec: FieldSpec | None) -> str:
    return "no such field" if spec is None else spec.text
