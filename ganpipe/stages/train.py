"""train: the generator, its samples while it learned, and its curves."""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import safetensors.torch

from .. import environment, processes
from ..data.shards.shard_set import ShardSet
from ..gans.base import GanConfig
from ..params import Params
from ..section import parse
from ..tracking.links import run_page
from ..tracking.run_log import RunLog
from ..tracking.runs import Tracker
from ..training.alarms import alarms_of, as_csv
from ..training.feed import data_spec_of
from ..training.settings import TrainSettings
from ..training.state import TrainingState, listed
from ..training.worker import TrainingJob, train
from .common import CURVES, REAL_IMAGES, SHARDS, TRAIN, TUNE, leave_note, read_json, shards_here, write_json, write_text
from .jobs import OpenTraining, begin, connect_ray, job_server, needs_of, run_concurrently, training_job
from .longer import STATE, go_on_from_shorter, steps_key
from .remote_job import Work, submit
from .runs import run_key, run_tags
from .start import find_weights
from .work import mark_done, work_folder

ALARMS = "alarms.csv"
OVER_TIME = "over_time"
"""In best.json, where population based training has found settings that change; else it has settings by player."""
GRACE_SECONDS = 8.0
"""From SIGTERM to the end: time for the workers to write a checkpoint. Prefect and others kill after 10 s or more."""


def main(argv: list[str]) -> int:
    params, manifest = begin(argv, "train", __doc__)
    params, config = searched(params)
    settings = training_settings(params, config)
    tracker = Tracker.at(environment.home(), params.register_.experiment)
    found = find_weights(params, data_spec_of(manifest), tracker)
    origin = None if found is None else found.description
    settings |= {} if origin is None else {"start": origin}
    key = run_key("train", params.train.gan, manifest.digest, settings)
    folder = work_folder(params.cluster.storage_path, "train", key)
    job = training_job(params, manifest, config, folder)
    steps = steps_key(params, manifest, settings)
    go_on_from_shorter(job, steps)
    start = None if found is None else found.write_to(folder)
    address, is_there = job_server(), job.is_done()

    def open_run() -> RunLog:
        tags = run_tags(params, manifest, [SHARDS, TUNE], origin)
        return tracker.run("train", key, name=f"train {params.train.gan}", tags=tags)

    def reach() -> ShardSet | None:
        return None if is_there or address else connect_ray(params, manifest, needs_of(params, "train"), tracker.uri)

    opened, shards = run_concurrently(open_run, reach)
    with opened as run:
        run.log_params(settings)
        if is_there:
            print("the training is complete already: an earlier run with the same work did it")
        elif address:
            here = shards_here(params, manifest)
            work = Work(
                "train",
                params,
                adam_of(read_json(TUNE / "best.json", made_by="tune")),
                folder,
                key,
                run.run_id,
                here,
                "",
                tracker,
                start,
            )
            submit(address, work, job.store.request_stop)
        else:
            placed = training_job(params, manifest, config, folder, shards.result(), start)
            with processes.graceful_sigterm(job.store.request_stop, GRACE_SECONDS):
                train(dataclasses.replace(placed, open_tracker=OpenTraining(tracker, run.run_id)), params.cluster)
        state = TrainingState(job.gan, config, data_spec_of(manifest), job.settings)
        names = {"run_key": key, "steps_key": steps, "data_digest": manifest.digest}
        chosen = _write(job, state, names | ({} if origin is None else {"start": origin}))
        # The samples are in the run already, but for those of a shorter training from which this one went on.
        for folder_name in (CURVES, "samples"):
            for path in sorted((TRAIN / folder_name).iterdir()):
                run.log_artifact(path, folder_name)
        run.log_artifact(TRAIN / ALARMS)
        if REAL_IMAGES.is_file():  # missing where an earlier ganpipe made the shards
            run.log_artifact(REAL_IMAGES)
        leave_note("train", links={"MLflow run of the training": run_page(tracker, run.run_id, run.experiment_id)})
    mark_done(folder, [TRAIN / "generator.safetensors", TRAIN / "model.json"])
    print(f"{TRAIN}: generator after {chosen:,} images")
    return 0


def searched(params: Params) -> tuple[Params, GanConfig]:
    """The settings, and those of the GAN, with what the search found."""
    found = read_json(TUNE / "best.json", made_by="tune")
    if OVER_TIME in found:
        train = parse(TrainSettings, {**params.train.model_dump(), OVER_TIME: found[OVER_TIME]}, "train", "best.json")
        params = params.model_copy(update={"train": train})
    elif found:  # a search that ran after settings over time were pinned
        params = params.model_copy(update={"train": params.train.model_copy(update={OVER_TIME: ()})})
    return params, params.gan_config.with_optimizers(adam_of(found))


def adam_of(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """{player: {lr, beta1, beta2}} of what best.json holds; empty where it holds settings over time."""
    return {} if OVER_TIME in found else dict(found)


def training_settings(params: Params, config: GanConfig) -> dict[str, Any]:
    """All that decides a training beside code and data; what its MLflow run has as params."""
    return {
        "train": params.train.model_dump(mode="json"),
        "cluster": params.cluster.model_dump(mode="json"),
        "gans": {params.train.gan: config.model_dump(mode="json")},
        "evaluate": params.evaluate.model_dump(mode="json"),
    }


def _write(job: TrainingJob, state: TrainingState, names: Mapping[str, Any]) -> int:
    """Write the outs from the last or best checkpoint. Returns the images that the chosen generator has seen.

    Args:
        names: what model.json says of the training: digests of what decided it, where its first weights came from.
    """
    last = job.store.list()[-1]
    state.load_state_dict(job.store.load(last))
    rows, scores, told = state.curves.rows, state.scores, alarms_of(state)
    chosen = job.store.best(scores) if job.settings.select == "best" else last
    if chosen is not None and chosen != last:
        state.load_state_dict(job.store.load(chosen))
    (TRAIN / "samples").mkdir(parents=True, exist_ok=True)
    filesystem, path = fsspec.core.url_to_fs(f"{job.folder}/samples")
    for name in listed(filesystem, path, "*.png"):
        (TRAIN / "samples" / name.rsplit("/", 1)[-1]).write_bytes(filesystem.cat_file(name))
    write_curves(TRAIN / CURVES, rows)
    write_text(TRAIN / ALARMS, as_csv(told))
    write_text(TRAIN / "scores.csv", _csv([{"images_seen": seen, job.score_name: s} for seen, s in scores.items()]))
    (TRAIN / STATE).write_bytes(job.store.content(last) if job.settings.keep_state else b"")
    safetensors.torch.save_file(state.generator_state(), TRAIN / "generator.safetensors")
    write_json(
        TRAIN / "model.json",
        {
            "gan": job.gan,
            "config": job.config.model_dump(mode="json"),
            "averaged": job.settings.ema_half_life > 0,
            "data": state.gan.data.to_json(),
            "progress": dataclasses.asdict(state.progress),
            "trained_images": last,
            **names,
        },
    )
    return state.progress.images_seen


def write_curves(folder: Path, rows: Sequence[dict[str, float]]) -> None:
    """A table per quantity, `<quantity>.csv`: step, images_seen and its values; earlier tables are removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    counts = ("step", "images_seen")
    for name in dict.fromkeys(name for row in rows for name in row if name not in counts):
        table = [{key: row[key] for key in (*counts, name)} for row in rows if name in row]
        write_text(folder / f"{name.replace('/', '_')}.csv", _csv(table))


def _csv(rows: list[dict[str, float]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
    )
    return text.getvalue()
