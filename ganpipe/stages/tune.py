"""tune: the best optimiser settings by quick FID, and the table of trials."""

from __future__ import annotations

from .. import environment
from ..data.shards.shard_set import ShardSet
from ..tracking.links import run_page
from ..tracking.run_log import RunLog
from ..tracking.runs import Tracker
from ..training.feed import data_spec_of
from ..training.search import search
from ..training.search_figure import draw_trials
from ..training.trials import SearchResult
from .common import SHARDS, TUNE, leave_note, write_json, write_text
from .jobs import OpenTrial, begin, connect_ray, job_server, needs_of, run_concurrently, training_job
from .remote_job import Work, submit
from .runs import run_key, run_tags
from .start import find_weights
from .work import mark_done, work_folder

OF_TRAIN = ("gan", "start_from", "batch_size", "micro_batch_size", "seed", "precision", "channels_last", "compile",
            "deterministic", "max_gradient_norm", "schedule", "augment", "ema_half_life",
            "ema_ramp_up")  # fmt: skip
"""What of `train` a trial depends on; the rest may change without a new search. dvc.yaml names the same."""


def main(argv: list[str]) -> int:
    params, manifest = begin(argv, "tune", __doc__)
    training_job(params, manifest, params.gan_config, folder="")  # fails now where the GAN does not fit the data
    if params.tune.num_trials == 0:
        print("tune: tune.num_trials is 0; the GAN keeps its own settings")
        return _write(None)
    tracker = Tracker.at(environment.home(), params.register_.experiment)
    found = find_weights(params, data_spec_of(manifest), tracker)
    origin = None if found is None else found.description
    key = run_key(
        "tune",
        params.train.gan,
        manifest.digest,
        params.tune.model_dump(mode="json"),
        params.train.model_dump(mode="json", include=set(OF_TRAIN)),
        params.gan_config.model_dump(mode="json"),
        params.evaluate.quick.model_dump(mode="json"),
        origin,
    )
    folder = work_folder(params.cluster.storage_path, "tune", key)
    start = None if found is None else found.write_to(folder)
    address = job_server()

    def open_run() -> RunLog:
        tags = run_tags(params, manifest, [SHARDS], origin)
        return tracker.run("tune", key, name=f"tune {params.train.gan}", tags=tags)

    def reach() -> ShardSet | None:
        return None if address else connect_ray(params, manifest, needs_of(params, "tune"), tracker.uri)

    opened, shards = run_concurrently(open_run, reach)
    with opened as run:
        run.log_params({"tune": params.tune.model_dump(mode="json"), "gan": params.train.gan})
        if address:
            here = ShardSet(str(SHARDS.absolute()), manifest)
            result = submit(address, Work("tune", params, {}, folder, key, run.run_id, here, "", tracker, start))
        else:
            result = search(
                training_job(params, manifest, params.gan_config, folder, shards.result(), start),
                params.tune,
                params.cluster,
                OpenTrial(tracker, key, run.run_id, params.train.gan),
            )
        assert result is not None
        _write(result)
        best = result.best
        run.log_metrics({f"best_{result.objective}": best.objective}, step=0)
        run.log_artifact(TUNE / "trials.csv")
        run.log_artifact(TUNE / "trials.png")
        leave_note("tune", links={"MLflow run of the search": run_page(tracker, run.run_id, run.experiment_id)})
    mark_done(folder, [TUNE / "best.json", TUNE / "trials.csv"])
    print(f"tune: best of {len(result.trials)} trials is {best.number} with {result.objective} {best.objective:.2f}")
    return 0


def _write(result: SearchResult | None) -> int:
    TUNE.mkdir(parents=True, exist_ok=True)
    write_text(TUNE / "trials.csv", result.table() if result else "trial,images_seen\n")
    (TUNE / "trials.png").write_bytes(draw_trials(result))
    write_json(TUNE / "best.json", result.chosen if result else {})
    return 0
