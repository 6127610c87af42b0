"""The search for optimiser settings on Ray Tune: every trial is a short training by the same worker function."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import GanpipeError, UnavailableError
from ..gans.base import GanConfig
from ..section import nearest
from .failures import FAILS_AGAIN, describe_error, is_transient, unwrap_error
from .observers import Tracker
from .search_settings import AdamSpace, Distribution, TuneSettings
from .settings import ClusterSettings
from .state import Diverged
from .worker import TrainingJob, run_training, train

OpenTrialTracker = Callable[[str, Mapping[str, Any]], Tracker]
"""(trial name, its Adam settings) -> tracker; called in the trial's process."""
_TRIALS = "trials"
"""Name of the search's folder: Tune goes on with one of the same name."""
_FINAL = "fails_again"
"""A trial reports this before it raises an error of the code."""
AdamByPlayer = dict[str, dict[str, float]]
"""{player: {lr, beta1, beta2}}, each key optional."""


@dataclass(frozen=True)
class Trial:
    """One row of the table of trials."""

    number: int
    adam: AdamByPlayer
    images_seen: int
    objective: float


@dataclass(frozen=True)
class SearchResult:
    """What a search found. `best` overrides the GAN's own settings; it is empty where nothing was searched."""

    objective: str
    trials: list[Trial]

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
        columns = [(player, name) for player, values in self.trials[0].adam.items() for name in values]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["trial", "images_seen", *(f"{p}.{n}" for p, n in columns), self.objective])
        for trial in self.trials:
            values = [repr(trial.adam[player][name]) for player, name in columns]
            writer.writerow([trial.number, trial.images_seen, *values, repr(trial.objective)])
        return text.getvalue()


def space_by_player(settings: TuneSettings, players: list[str]) -> dict[str, AdamSpace]:
    """What is searched for each of `players`.

    Raises:
        GanpipeError: tune.player_space names a player that this GAN does not have.
    """
    for name in settings.player_space:
        if name not in players:
            raise GanpipeError(f"tune.player_space.{name}: the GAN has no such player; {nearest(name, players)}")
    return {player: settings.player_space.get(player, settings.space) for player in players}


def search(
    job: TrainingJob,
    settings: TuneSettings,
    cluster: ClusterSettings,
    open_trial_tracker: OpenTrialTracker | None = None,
) -> SearchResult:
    """Run the trials; Ray must be running. A search that was stopped in the same `job.folder` goes on where it was.

    Raises:
        GanpipeError: there is nothing to search, or a trial failed with an error of the code.
        UnavailableError: a trial's processes were lost more often than cluster.max_failures.
    """
    from ray import tune
    from ray.tune.execution import class_cache

    # Tune would send the driver's AWS keys to its actors, by an environment that Ray writes into its logs. As in
    # training, each host has its own.
    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    space = search_space(job.config, settings)
    trainable = _trainable(job, settings, cluster, open_trial_tracker)
    storage = f"{job.folder}/search"
    if tune.Tuner.can_restore(f"{storage}/{_TRIALS}"):
        print(f"{job.name}: going on with the search", flush=True)
        tuner = tune.Tuner.restore(f"{storage}/{_TRIALS}", trainable, resume_unfinished=True, resume_errored=True)
    else:
        tuner = _new_tuner(trainable, job, settings, storage, space, cluster.max_failures)
    return _result(tuner.fit(), job.score_name)


@dataclass(frozen=True)
class SearchSpace:
    """What a search varies, by `<player>.<setting>`.

    Attributes:
        distributions: where the values are searched.
        first: the settings of the first trial: the GAN's own values, as far as the distributions can give them.
    """

    distributions: dict[str, Distribution]
    first: dict[str, float]


def search_space(config: GanConfig, settings: TuneSettings) -> SearchSpace:
    """What is searched for this GAN: of each player's optimiser, the settings that it has and the space names.

    Raises:
        GanpipeError: there is nothing to search.
    """
    space = space_by_player(settings, config.players)
    own = {player: config.optimizer_of(player).model_dump() for player in config.players}
    # RMSprop and SGD have no betas: only their learning rate is searched.
    flat = {f"{p}.{n}": d for p in config.players for n, d in space[p].distributions().items() if n in own[p]}
    if not flat:
        raise GanpipeError("tune.space: nothing to search; name lr, beta1 or beta2, or set tune.num_trials: 0")
    defaults = {f"{p}.{name}": value for p in config.players for name, value in own[p].items() if f"{p}.{name}" in flat}
    return SearchSpace(flat, {key: value for key, value in defaults.items() if flat[key].holds(value)})


def _trainable(
    job: TrainingJob, settings: TuneSettings, cluster: ClusterSettings, open_trial_tracker: OpenTrialTracker | None
) -> Any:
    """What Tune runs for each trial, with what it takes of the cluster."""
    from ray import tune

    trial_job = dataclasses.replace(
        job,
        settings=job.settings.model_copy(
            update={
                "num_images": settings.num_images,
                "checkpoint_every": settings.grace_images if settings.scheduler == "asha" else settings.num_images,
                "keep_checkpoints": 1,
                "patience_images": None,  # trials are compared after equally many images
            }
        ),
        num_threads=max(1, int(settings.cpus_per_worker)),
        draw=None,
    )
    trial_cluster = cluster.model_copy(
        update={
            "num_workers": settings.workers_per_trial,
            "cpus_per_worker": settings.cpus_per_worker,
            "gpus_per_worker": settings.gpus_per_worker,
        }
    )
    resources = {"CPU": settings.cpus_per_worker, "GPU": settings.gpus_per_worker}
    return tune.with_resources(
        tune.with_parameters(_trial, job=trial_job, cluster=trial_cluster, open_trial_tracker=open_trial_tracker),
        # A trial of several workers only waits for them: it takes no CPU, or the trials would starve one another.
        resources if settings.workers_per_trial == 1 else {"memory": 1},
    )


def _new_tuner(
    trainable: Any,
    job: TrainingJob,
    settings: TuneSettings,
    storage: str,
    space: SearchSpace,
    max_failures: int,
) -> Any:
    from ray import tune

    return tune.Tuner(
        trainable,
        param_space=None
        if settings.searcher == "tpe"
        else {k: _tune_domain(d) for k, d in space.distributions.items()},
        tune_config=tune.TuneConfig(
            num_samples=settings.num_trials,
            # The random searcher limits the number itself, and Tune warns where both limit it.
            max_concurrent_trials=_num_concurrent_trials(settings) if settings.searcher == "tpe" else None,
            search_alg=_searcher(settings, job.score_name, space),
            scheduler=_scheduler(settings, job.score_name),
            reuse_actors=settings.workers_per_trial == 1,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=_TRIALS,
            storage_path=storage,
            verbose=0,
            # A trial whose process died starts again, from its own checkpoint where it has one; see `_trial_callback`.
            failure_config=tune.FailureConfig(max_failures=max_failures),
            callbacks=[_trial_callback(job.name, settings.num_trials, job.score_name, max_failures)],
        ),
    )


def _result(results: Any, objective: str) -> SearchResult:
    """The table of trials from Tune's results.

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
    # A search that went on lists the trials in another order than one that was not stopped.
    ended = [(results[index].metrics or {}, results[index].config or {}) for index in range(len(results))]
    ended.sort(key=lambda trial: _trial_index(trial[0]["experiment_tag"]))
    trials = [
        Trial(number, _by_player(config), int(metrics["images_seen"]), float(metrics[objective]))
        for number, (metrics, config) in enumerate(ended)
    ]
    return SearchResult(objective, trials)


def _trial_index(experiment_tag: str) -> int:
    """The number of a trial in the order in which the searcher made them; the first is 0 or 1."""
    return int(experiment_tag.partition("_")[0])


def _trial_name(trial: Any) -> str:
    """A trial's number and a digest of its settings: the same after a restart, even where Tune has no note yet."""
    settings = hashlib.sha256(json.dumps(trial.config, sort_keys=True, default=str).encode()).hexdigest()
    return f"{_trial_index(trial.experiment_tag)}-{settings[:8]}"


def _by_player(flat: Mapping[str, float]) -> AdamByPlayer:
    nested: AdamByPlayer = {}
    for key, value in flat.items():
        player, name = key.rsplit(".", 1)
        nested.setdefault(player, {})[name] = float(value)
    return nested


def _trial(
    config: dict[str, float],
    job: TrainingJob,
    cluster: ClusterSettings,
    open_trial_tracker: OpenTrialTracker | None,
) -> None:
    """One trial: a training with its own Adam settings, reporting the objective at every rung and at the end."""
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    name = tune.get_context().get_trial_name()
    adam = _by_player(config)
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
            tune.report({"images_seen": 0, job.score_name: math.inf, _FINAL: True})
        raise


@dataclass(frozen=True)
class _TrialTracker:
    """Opens a trial's tracker; a class, because it is pickled and sent to the trial's workers."""

    open_trial_tracker: OpenTrialTracker
    name: str
    adam: AdamByPlayer

    def __call__(self) -> Tracker:
        return self.open_trial_tracker(self.name, self.adam)


def _num_concurrent_trials(settings: TuneSettings) -> int:
    """How many trials the cluster has room for side by side, at least 1 and at most max_concurrent_trials."""
    import ray

    total = ray.cluster_resources()
    per_trial = {
        "CPU": settings.cpus_per_worker * settings.workers_per_trial,
        "GPU": settings.gpus_per_worker * settings.workers_per_trial,
    }
    fits = min(int(total.get(kind, 0) // need) for kind, need in per_trial.items() if need > 0)
    return max(1, min(fits, settings.max_concurrent_trials or fits))


def _tune_domain(distribution: Distribution) -> Any:
    from ray import tune

    if distribution.log_uniform is not None:
        return tune.loguniform(*distribution.log_uniform)
    if distribution.uniform is not None:
        return tune.uniform(*distribution.uniform)
    return tune.choice(list(distribution.choice or ()))


def _searcher(settings: TuneSettings, metric: str, space: SearchSpace) -> Any:
    if settings.searcher == "random":
        from ray.tune.search import BasicVariantGenerator

        return BasicVariantGenerator(
            points_to_evaluate=[space.first],
            max_concurrent=_num_concurrent_trials(settings),
            random_state=settings.seed,
        )
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(
        {key: _optuna_distribution(d) for key, d in space.distributions.items()},
        metric=metric,
        mode="min",
        points_to_evaluate=[space.first],
        sampler=optuna.samplers.TPESampler(seed=settings.seed),
    )


def _optuna_distribution(distribution: Distribution) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if distribution.choice is not None:
        return CategoricalDistribution(distribution.choice)
    low, high = distribution.log_uniform or distribution.uniform or (0.0, 1.0)
    return FloatDistribution(low, high, log=distribution.log_uniform is not None)


def _trial_callback(name: str, num_trials: int, metric: str, max_failures: int) -> Any:
    """Tune's callback that prints a line for every trial that ends, and retries no trial that would fail again."""
    from ray import tune

    class Trials(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            trial.max_failures = max_failures  # also where the search goes on with the trials of an earlier process

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if result.get(_FINAL):
                trial.max_failures = 0

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ended = 1 + sum(other.is_finished() for other in trials if other is not trial)
            settings = "  ".join(f"{key} {value:.3g}" for key, value in trial.config.items())
            score = trial.last_result.get(metric, math.nan)
            print(f"{name}: {ended} of {num_trials} trials done, {metric} {score:.2f}  {settings}", flush=True)

    return Trials()


def _scheduler(settings: TuneSettings, metric: str) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if settings.scheduler == "fifo":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="images_seen",
        metric=metric,
        mode="min",
        max_t=settings.num_images,
        grace_period=settings.grace_images,
        reduction_factor=settings.reduction_factor,
    )
