"""Trials of a search: short trainings by the same worker function, and what they find."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import GanpipeError, UnavailableError
from .failures import FAILS_AGAIN, describe_error, is_transient, unwrap_error
from .observers import Tracker
from .search_settings import TuneSettings
from .settings import ClusterSettings
from .state import Diverged
from .worker import TrainingJob, run_training, train

OpenTrialTracker = Callable[[str, Mapping[str, Any]], Tracker]
"""(trial name, its Adam settings) -> tracker; called in the trial's process."""
AdamByPlayer = dict[str, dict[str, float]]
"""{player: {lr, beta1, beta2}}, each key optional."""
FINAL = "fails_again"
"""A trial reports this before it raises an error of the code."""


@dataclass(frozen=True)
class Trial:
    """One row of the table of trials."""

    number: int
    adam: AdamByPlayer
    images_seen: int
    objective: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; the objective as text, because JSON knows no infinity."""
        return {**dataclasses.asdict(self), "objective": str(self.objective)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Trial:
        """The reverse."""
        return cls(**{**values, "objective": float(values["objective"])})


@dataclass(frozen=True)
class SearchResult:
    """What a search found. `best` overrides the GAN's own settings; it is empty where nothing was searched."""

    objective: str
    trials: list[Trial]
    over_time: list[dict[str, Any]] = field(default_factory=list)
    """Of population based training: the settings of the best member over the course, as `train.over_time` has them."""

    @property
    def chosen(self) -> dict[str, Any]:
        """What a training takes from it: {player: {lr, beta1, beta2}}, or {"over_time": [...]}."""
        return {"over_time": self.over_time} if self.over_time else self.best.adam

    @property
    def best(self) -> Trial:
        """The finished trial with the lowest objective, the earlier one among equals.

        Raises:
            Diverged: no trial gave a finite objective.
        """
        # Fewer images seen means that the scheduler gave up on it, whatever its score was then.
        longest = max(trial.images_seen for trial in self.trials)
        finished = [t for t in self.trials if t.images_seen == longest and math.isfinite(t.objective)]
        if not finished:
            raise Diverged(
                f"tune: none of {len(self.trials)} trials gave a finite {self.objective}; "
                "lower the learning rates in tune.space, or lengthen tune.num_images"
            )
        return min(finished, key=lambda trial: (trial.objective, trial.number))

    def table(self) -> str:
        """CSV: trial, images_seen, <player>.<setting> …, objective."""
        columns = list(flat(self.trials[0].adam))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["trial", "images_seen", *columns, self.objective])
        for trial in self.trials:
            settings = flat(trial.adam)
            values = [repr(settings[name]) for name in columns]
            writer.writerow([trial.number, trial.images_seen, *values, repr(trial.objective)])
        return text.getvalue()


def read_table(text: str) -> list[Trial]:
    """The trials of a table, see `SearchResult.table`.

    Raises:
        ValueError: it is none.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    names = list(rows[0]) if rows else []
    if names[:2] != ["trial", "images_seen"] or len(names) < 4 or any("." not in name for name in names[2:-1]):
        raise ValueError("expected a table of trials: trial, images_seen, <player>.<setting>, …, objective")
    return [
        Trial(
            int(row["trial"]),
            by_player({name: float(row[name]) for name in names[2:-1]}),
            int(row["images_seen"]),
            float(row[names[-1]]),
        )
        for row in rows
    ]


def trial_job(job: TrainingJob, settings: TuneSettings) -> TrainingJob:
    """`job`, as short as a trial is."""
    every = {"asha": settings.grace_images, "pbt": settings.exchange_images}.get(
        settings.scheduler, settings.num_images
    )
    shorter = {
        "num_images": settings.num_images,
        "checkpoint_every": every,
        "keep_checkpoints": 1,
        "patience_images": None,  # trials are compared after equally many images
        "over_time": (),  # each trial has settings of its own
    }
    return dataclasses.replace(
        job,
        settings=job.settings.model_copy(update=shorter),
        num_threads=max(1, int(settings.cpus_per_worker)),
        draw=None,
        tells_alarms=False,  # that trials fail is what a search is for
    )


def trial_cluster(cluster: ClusterSettings, settings: TuneSettings) -> ClusterSettings:
    """What the workers of a trial take."""
    return cluster.model_copy(
        update={
            "num_workers": settings.workers_per_trial,
            "cpus_per_worker": settings.cpus_per_worker,
            "gpus_per_worker": settings.gpus_per_worker,
        }
    )


def trial_resources(settings: TuneSettings) -> dict[str, float]:
    """What a trial itself takes of the cluster."""
    # A trial of several workers only waits for them: it takes no CPU, or the trials would starve one another.
    if settings.workers_per_trial > 1:
        return {"memory": 1}
    return {"CPU": settings.cpus_per_worker, "GPU": settings.gpus_per_worker}


def run_trials(
    trainable: Any,
    job: TrainingJob,
    settings: TuneSettings,
    max_failures: int,
    name: str,
    num_trials: int,
    trial_name: Callable[[Any], str],
    param_space: dict[str, Any] | None,
    **tune_config: Any,
) -> Any:
    """Run trials on Tune, and return its results; Ray must be running. Those of the same name in the same `job.folder`
    that were stopped go on where they were.

    Args:
        trainable: what Tune runs for each.
        max_failures: how often a trial starts again whose process died, from its own checkpoint where it has one.
        trial_name: names a trial and its folder.

    Raises:
        GanpipeError: a trial failed with an error of the code.
        UnavailableError: a trial's processes were lost more often than `max_failures`.
    """
    from ray import tune

    storage = f"{job.folder}/search"
    with_resources = tune.with_resources(trainable, trial_resources(settings))
    if tune.Tuner.can_restore(f"{storage}/{name}"):
        print(f"{job.name}: going on with the {name.replace('-', ' ')}", flush=True)
        tuner = tune.Tuner.restore(f"{storage}/{name}", with_resources, resume_unfinished=True, resume_errored=True)
    else:
        tuner = tune.Tuner(
            with_resources,
            param_space=param_space,
            tune_config=tune.TuneConfig(
                reuse_actors=settings.workers_per_trial == 1,
                trial_name_creator=trial_name,
                trial_dirname_creator=trial_name,
                **tune_config,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=storage,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=max_failures),
                callbacks=[trial_callback(job.name, num_trials, job.score_name, max_failures)],
            ),
        )
    results = tuner.fit()
    raise_failures(results)
    return results


def run_trial(
    name: str,
    adam: AdamByPlayer,
    job: TrainingJob,
    cluster: ClusterSettings,
    open_trial_tracker: OpenTrialTracker | None,
) -> None:
    """A training with its own optimiser settings, in a trial of Tune's: it reports the objective at every checkpoint.

    Args:
        job: see `trial_job`.
    """
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    job = dataclasses.replace(
        job,
        name=f"trial {name}",
        config=job.config.with_optimizers(adam),
        folder=f"{job.folder}/search/work/{name}",
        open_tracker=None if open_trial_tracker is None else _TrialTracker(open_trial_tracker, name, adam),
    )
    try:
        if cluster.most_workers == 1:
            run_training(job, report=tune.report)
        else:
            train(job, cluster, callbacks=[TuneReportCallback()])
    except Diverged as error:
        print(f"{job.name}: {error}", flush=True)
        tune.report({"images_seen": job.settings.num_images, job.score_name: math.inf})
    except Exception as error:  # of whatever kind: it goes on to Tune, which would try the trial again
        if not is_transient(error):
            tune.report({"images_seen": 0, job.score_name: math.inf, FINAL: True})
        raise


@dataclass(frozen=True)
class _TrialTracker:
    """Opens a trial's tracker; a class, because it is pickled and sent to the trial's workers."""

    open_trial_tracker: OpenTrialTracker
    name: str
    adam: AdamByPlayer

    def __call__(self) -> Tracker:
        return self.open_trial_tracker(self.name, self.adam)


def num_concurrent_trials(settings: TuneSettings) -> int:
    """How many trials the cluster has room for side by side, at least 1 and at most max_concurrent_trials."""
    import ray

    total = ray.cluster_resources()
    per_trial = {
        "CPU": settings.cpus_per_worker * settings.workers_per_trial,
        "GPU": settings.gpus_per_worker * settings.workers_per_trial,
    }
    fits = min(int(total.get(kind, 0) // need) for kind, need in per_trial.items() if need > 0)
    return max(1, min(fits, settings.max_concurrent_trials or fits))


def trial_callback(name: str, num_trials: int, metric: str, max_failures: int) -> Any:
    """Tune's callback that prints a line for every trial that ends, and retries no trial that would fail again."""
    from ray import tune

    class Trials(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            trial.max_failures = max_failures  # also where the search goes on with the trials of an earlier process

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if result.get(FINAL):
                trial.max_failures = 0

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ended = 1 + sum(other.is_finished() for other in trials if other is not trial)
            settings = "  ".join(f"{key} {value:.3g}" for key, value in trial.config.items())
            score = trial.last_result.get(metric, math.nan)
            print(f"{name}: {ended} of {num_trials} trials done, {metric} {score:.2f}  {settings}", flush=True)

    return Trials()


def flat(adam: AdamByPlayer) -> dict[str, float]:
    """`<player>.<setting>` -> value, sorted: settings that were in a JSON file have another order than new ones, and
    the tables and figures of the same trials are the same bytes."""
    settings = {f"{player}.{name}": value for player, values in adam.items() for name, value in values.items()}
    return dict(sorted(settings.items()))


def by_player(settings: Mapping[str, float]) -> AdamByPlayer:
    """The reverse of `flat`."""
    nested: AdamByPlayer = {}
    for key, value in settings.items():
        player, name = key.rsplit(".", 1)
        nested.setdefault(player, {})[name] = float(value)
    return nested


def keep_keys_here() -> None:
    """Tune would send the driver's AWS keys to its actors, by an environment that Ray writes into its logs. As in
    training, each host has its own."""
    from ray.tune.execution import class_cache

    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}


def raise_failures(results: Any) -> None:
    """Return if all trials came to their end.

    Args:
        results: Tune's.

    Raises:
        GanpipeError: a trial failed with an error of the code.
        UnavailableError: a trial's processes were lost more often than `max_failures`.
    """
    failed = f"tune: {results.num_errors} of {len(results)} trials failed"
    for error in results.errors:
        if not is_transient(error):
            again = "" if isinstance(unwrap_error(error), GanpipeError) else f"; {FAILS_AGAIN}"
            raise GanpipeError(f"{failed}: {describe_error(error, str(error))}{again}")
    if results.errors:
        cause = describe_error(results.errors[0], str(results.errors[0]))
        raise UnavailableError(f"{failed}: {cause}; the same command tries them again")
