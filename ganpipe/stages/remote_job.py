"""The Ray part of `tune` and `train` as a job of a remote cluster: described, run there, its result read here.

The cluster is sent the description, which is JSON, and this project's code: no pickle and no secret. Checkpoints,
sample grids and `result.json` come back in the work's folder, which has a URL.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec

from ..data.access.host_cache import host_cache
from ..data.shards.manifest import Manifest
from ..data.shards.shard_set import ShardSet
from ..errors import EXIT_MENDABLE, GanpipeError, UnavailableError
from ..params import Params
from ..redaction import redact, without_user_info
from ..tracking.runs import Tracker
from ..training import cluster, hosts, job_api
from ..training.failures import FAILS_AGAIN, describe_error, is_transient
from ..training.search import search
from ..training.start import Start
from ..training.trials import AdamByPlayer, SearchResult, Trial
from ..training.worker import train
from .jobs import OpenTraining, OpenTrial, needs_of, training_job
from .shared_storage import require_reachable, require_shared, with_dvc_urls

DESCRIPTION, RESULT = "job.json", "result.json"
ENTRYPOINT = f"python -m {__name__}"


@dataclasses.dataclass(frozen=True)
class Work:
    """What `tune` or `train` does on Ray.

    Attributes:
        stage: which of them.
        params: all settings.
        adam: {player: {lr, beta1, beta2}}, what the search found; empty for `tune`.
        folder: URL of the work's folder.
        key: run key.
        run_id: of the stage's MLflow run.
        shards: as the cluster's hosts find them; `submit` adds their URLs.
        no_urls: a clause that says why `shards` has no URLs; empty where it has them.
        tracker: where MLflow is, for the cluster's hosts.
        start: weights to start from.
        known, earlier: of a search, see `training.search.search`.
    """

    stage: str
    params: Params
    adam: Mapping[str, Mapping[str, float]]
    folder: str
    key: str
    run_id: str
    shards: ShardSet
    no_urls: str
    tracker: Tracker
    start: Start | None = None
    known: Sequence[Trial] = ()
    earlier: Sequence[AdamByPlayer] = ()

    def to_json(self) -> str:
        """What the cluster is sent."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["params"] = self.params.model_dump(mode="json", by_alias=True)
        values["shards"] = dataclasses.asdict(self.shards) | {
            "manifest": self.shards.read_manifest().model_dump(mode="json")
        }
        values["start"] = self.start and dataclasses.asdict(self.start)
        values["known"] = [one.to_json() for one in self.known]
        values["tracker"] = {"uri": without_user_info(self.tracker.uri), "experiment": self.tracker.experiment}
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Work:
        """The work as a host of the cluster reads it."""
        values = json.loads(text)
        manifest = Manifest.model_validate(values["shards"].pop("manifest"))
        spool = str(host_cache() / "tracking")
        # Credentials for MLflow come from this host's environment, never from the description.
        uri = os.environ.get("MLFLOW_TRACKING_URI") or values["tracker"]["uri"]
        return cls(
            **values
            | {
                "params": Params.model_validate(values["params"]),
                "shards": ShardSet(manifest=manifest, **values["shards"]),
                "start": values["start"] and Start(**values["start"]),
                "known": [Trial.from_json(one) for one in values["known"]],
                "tracker": Tracker(uri, values["tracker"]["experiment"], spool),
            }
        )


def submit(address: str, work: Work, request_stop: Callable[[], None] | None = None) -> SearchResult | None:
    """Run `work` as a job at `address`, or follow the job of the same stage and run key that runs there already.

    Args:
        work: its shards are those of this host.
        request_stop: makes the work end by itself, at a checkpoint.

    Returns:
        What a search found; None for a training, whose checkpoints lie in the work's folder.

    Raises:
        GanpipeError: the settings name places that only this host reaches, or the job itself raised an error.
    """
    require_shared(work.params.cluster, work.tracker.uri, [f"the cluster at {address}"])
    shards, no_urls = with_dvc_urls(work.shards)
    work = dataclasses.replace(work, shards=shards, no_urls=no_urls)
    name = f"ganpipe-{work.stage}-{work.key}"
    filesystem, place = fsspec.core.url_to_fs(f"{work.folder}/{RESULT}")
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / DESCRIPTION).write_text(work.to_json(), encoding="utf-8")
        ended = job_api.run(
            address,
            job_api.Job(name, ENTRYPOINT, Path(scratch), lambda: bool(filesystem.exists(place)), request_stop),
        )
    filesystem.invalidate_cache()
    if not filesystem.exists(place):
        raise UnavailableError(
            f"the job {name} at {address} ended without a result: {ended or 'its folder has none'}; the "
            "same command goes on from the last checkpoint"
        )
    result = json.loads(filesystem.cat_file(place))
    filesystem.rm_file(place)
    if result["error"] is not None:
        raise (UnavailableError if result["unavailable"] else GanpipeError)(result["error"])
    return search_result(result["search"]) if result["search"] is not None else None


def search_result(values: Mapping[str, Any]) -> SearchResult:
    return SearchResult(values["objective"], [Trial(**trial) for trial in values["trials"]], values["over_time"])


def run_work(work: Work) -> SearchResult | None:
    """Do the work in the job's own process, on a host of the cluster."""
    needs = needs_of(work.params, work.stage)
    cluster.connect(os.environ["RAY_ADDRESS"])
    cluster.require(needs.num_workers, needs.cpus, needs.gpus, work.params.cluster.wait_seconds, needs.section)
    if lacking := hosts.not_seeing(work.shards, hosts.with_room(needs.cpus, needs.gpus)):
        require_reachable(work.shards, work.no_urls, lacking)
    manifest = work.shards.read_manifest()
    config = work.params.gan_config.with_optimizers(work.adam)
    job = training_job(work.params, manifest, config, work.folder, work.shards, work.start)
    if work.stage == "tune":
        trials = OpenTrial(work.tracker, work.key, work.run_id, work.params.train.gan)
        return search(job, work.params.tune, work.params.cluster, trials, work.known, work.earlier)
    train(dataclasses.replace(job, open_tracker=OpenTraining(work.tracker, work.run_id)), work.params.cluster)
    return None


def main() -> int:
    """Run what job.json describes, and leave the result, or what went wrong, where the driver reads it."""
    work = Work.from_json(Path(DESCRIPTION).read_text(encoding="utf-8"))
    result: dict[str, Any] = {"error": None, "unavailable": False, "search": None}
    filesystem, place = fsspec.core.url_to_fs(f"{work.folder}/{RESULT}")
    if filesystem.exists(place):  # of an earlier job
        filesystem.rm_file(place)
    try:
        found = run_work(work)
        result["search"] = None if found is None else dataclasses.asdict(found)
    except GanpipeError as error:
        message = redact(str(error))
        print(f"error: {message}", file=sys.stderr, flush=True)
        result |= {"error": message, "unavailable": isinstance(error, UnavailableError)}
    except Exception as error:  # of the code: without a result the driver would take the job for a lost one
        trace = redact(traceback.format_exc())
        print(trace, file=sys.stderr, flush=True)
        result |= {
            "error": redact(f"{describe_error(error, trace)}; {FAILS_AGAIN}"),
            "unavailable": is_transient(error),
        }
    filesystem.makedirs(filesystem._parent(place), exist_ok=True)
    filesystem.pipe_file(place, json.dumps(result).encode())
    return 0 if result["error"] is None else EXIT_MENDABLE


if __name__ == "__main__":
    sys.exit(main())
