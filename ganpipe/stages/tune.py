"""tune: the best optimiser settings by quick FID, and the table of trials."""

from __future__ import annotations

import json
import math

import fsspec

from .. import environment
from ..data.shards.shard_set import ShardSet
from ..errors import GanpipeError, UnavailableError
from ..params import Params
from ..tracking.links import run_page
from ..tracking.run_log import RunLog
from ..tracking.runs import Tracker
from ..training.feed import data_spec_of
from ..training.search import search
from ..training.search_figure import draw_trials
from ..training.trials import AdamByPlayer, SearchResult, Trial, read_table
from .common import SHARDS, TUNE, leave_note, shards_here, write_json, write_text
from .dvc_store import locked_content
from .jobs import OpenTrial, begin, connect_ray, job_server, needs_of, run_concurrently, training_job
from .remote_job import Work, submit
from .runs import run_key, run_tags
from .start import find_weights
from .work import mark_done, work_folder

SEARCH = "search.json"
"""In TUNE: the trials, and a digest of everything that decides them but their number."""
OF_TRAIN = ("gan", "start_from", "batch_size", "micro_batch_size", "seed", "precision", "channels_last", "compile",
            "deterministic", "max_gradient_norm", "schedule", "window_shards", "shard_lanes", "mirror", "augment",
            "ema_half_life", "ema_ramp_up")  # fmt: skip
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
    earlier = earlier_settings(params.tune.start_from)
    decides = (
        manifest.digest,
        params.tune.model_dump(mode="json", exclude={"num_trials", "start_from"}),
        earlier,
        params.train.model_dump(mode="json", include=set(OF_TRAIN)),
        params.gan_config.model_dump(mode="json"),
        params.evaluate.model_dump(mode="json", include={"extractor", "resize", "split", "quick"}),
        origin,
    )
    key = run_key("tune", params.train.gan, params.tune.num_trials, *decides)
    trials_key = run_key("tune", params.train.gan, "trials", *decides)
    known = known_trials(params, trials_key)
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
            here = shards_here(params, manifest)
            work = Work("tune", params, {}, folder, key, run.run_id, here, "", tracker, start, known, earlier)
            result = submit(address, work)
        else:
            result = search(
                training_job(params, manifest, params.gan_config, folder, shards.result(), start),
                params.tune,
                params.cluster,
                OpenTrial(tracker, key, run.run_id, params.train.gan),
                known,
                earlier,
            )
        assert result is not None
        _write(result, trials_key)
        best = result.best
        run.log_metrics({f"best_{result.objective}": best.objective}, step=0)
        run.log_artifact(TUNE / "trials.csv")
        run.log_artifact(TUNE / "trials.png")
        leave_note("tune", links={"MLflow run of the search": run_page(tracker, run.run_id, run.experiment_id)})
    mark_done(folder, [TUNE / "best.json", TUNE / "trials.csv"])
    print(f"tune: best of {len(result.trials)} trials is {best.number} with {result.objective} {best.objective:.2f}")
    return 0


def known_trials(params: Params, key: str) -> list[Trial]:
    """The trials that a search of the same kind has run already, as dvc.lock names them: a random search with more
    trials begins with those of one with fewer."""
    if params.tune.searcher != "random" or params.tune.scheduler != "fifo":
        return []
    content = locked_content(TUNE / SEARCH)
    try:
        found = json.loads(content or b"{}")
        known = [Trial.from_json(one) for one in found["trials"]] if found.get("key") == key else []
    except (ValueError, TypeError, KeyError, AttributeError):
        return []
    if known:
        print(f"tune: {len(known)} trials of the last search are the same, and are not run again", flush=True)
    return known


def earlier_settings(place: str | None) -> list[AdamByPlayer]:
    """The settings of the trials in the table at a path or URL, best first; of those that ran to their end.

    Raises:
        GanpipeError: there is no table of trials.
    """
    if place is None:
        return []
    try:
        filesystem, path = fsspec.core.url_to_fs(place)
        trials = read_table(filesystem.cat_file(path).decode())
    except FileNotFoundError:
        raise GanpipeError(f"tune.start_from: got {place!r}; there is no such file") from None
    except ValueError as error:
        raise GanpipeError(f"tune.start_from: {place}: {error}") from None
    except Exception as error:  # each storage has errors of its own kinds
        raise UnavailableError(f"tune.start_from: {place} cannot be read: {error}") from error
    longest = max(trial.images_seen for trial in trials)
    ended = [trial for trial in trials if trial.images_seen == longest and math.isfinite(trial.objective)]
    return [trial.adam for trial in sorted(ended, key=lambda trial: (trial.objective, trial.number))]


def _write(result: SearchResult | None, key: str = "") -> int:
    TUNE.mkdir(parents=True, exist_ok=True)
    write_text(TUNE / "trials.csv", result.table() if result else "trial,images_seen\n")
    (TUNE / "trials.png").write_bytes(draw_trials(result))
    trials = [] if result is None else result.trials
    write_json(TUNE / SEARCH, {"key": key, "trials": [trial.to_json() for trial in trials]})
    write_json(TUNE / "best.json", result.chosen if result else {})
    return 0
