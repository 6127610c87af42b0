"""The search for optimiser settings on Ray Tune: every trial is a short training by the same worker function."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from .population import train_population
from .search_settings import Distribution, TuneSettings
from .search_space import SearchSpace, search_space
from .settings import ClusterSettings
from .trials import (
    AdamByPlayer,
    OpenTrialTracker,
    SearchResult,
    Trial,
    by_player,
    flat,
    keep_keys_here,
    num_concurrent_trials,
    run_trial,
    run_trials,
    trial_cluster,
    trial_job,
)
from .worker import TrainingJob

_TRIALS = "trials"
"""Name of the search's folder: Tune goes on with one of the same name."""


def search(
    job: TrainingJob,
    settings: TuneSettings,
    cluster: ClusterSettings,
    open_trial_tracker: OpenTrialTracker | None = None,
    known: Sequence[Trial] = (),
    earlier: Sequence[AdamByPlayer] = (),
) -> SearchResult:
    """Run the trials; Ray must be running. A search that was stopped in the same `job.folder` goes on where it was.

    Args:
        known: the first trials of a random search, which a shorter search has run already.
        earlier: settings that an earlier search found good, best first; they are those of the first trials.

    Raises:
        GanpipeError: there is nothing to search, or a trial failed with an error of the code.
        UnavailableError: a trial's processes were lost more often than cluster.max_failures.
    """

    keep_keys_here()
    space = search_space(job.config, settings)
    space = dataclasses.replace(space, further=[space.held(flat(adam)) for adam in earlier])
    if settings.scheduler == "pbt":
        return train_population(job, settings, cluster, space, open_trial_tracker)
    known = known[: settings.num_trials]
    if len(known) == settings.num_trials:
        return SearchResult(job.score_name, list(known))
    num_trials = settings.num_trials - len(known)
    is_tpe = settings.searcher == "tpe"
    results = run_trials(
        _trainable(job, settings, cluster, open_trial_tracker),
        job,
        settings,
        cluster.max_failures,
        _TRIALS,
        num_trials,
        _trial_name,
        None if is_tpe else {key: _tune_domain(value) for key, value in space.distributions.items()},
        num_samples=num_trials,
        # The random searcher limits the number itself, and Tune warns where both limit it.
        max_concurrent_trials=num_concurrent_trials(settings) if is_tpe else None,
        search_alg=_searcher(settings, job.score_name, space, len(known)),
        scheduler=_scheduler(settings, job.score_name),
    )
    return _result(results, job.score_name, known)


def _trainable(
    job: TrainingJob, settings: TuneSettings, cluster: ClusterSettings, open_trial_tracker: OpenTrialTracker | None
) -> Any:
    """What Tune runs for each trial."""
    from ray import tune

    parameters = {"job": trial_job(job, settings), "cluster": trial_cluster(cluster, settings)}
    return tune.with_parameters(_trial, **parameters, open_trial_tracker=open_trial_tracker)


def _result(results: Any, objective: str, known: Sequence[Trial]) -> SearchResult:
    """The table of trials from Tune's results, after those that are known."""
    # A search that went on lists the trials in another order than one that was not stopped.
    ended = [(results[index].metrics or {}, results[index].config or {}) for index in range(len(results))]
    ended.sort(key=lambda trial: _trial_index(trial[0]["experiment_tag"]))
    trials = [
        Trial(number, by_player(config), int(metrics["images_seen"]), float(metrics[objective]))
        for number, (metrics, config) in enumerate(ended, start=len(known))
    ]
    return SearchResult(objective, [*known, *trials])


def _trial_index(experiment_tag: str) -> int:
    """The number of a trial in the order in which the searcher made them; the first is 0 or 1."""
    return int(experiment_tag.partition("_")[0])


def _trial_name(trial: Any) -> str:
    """A trial's number and a digest of its settings: the same after a restart, even where Tune has no note yet."""
    settings = hashlib.sha256(json.dumps(trial.config, sort_keys=True, default=str).encode()).hexdigest()
    return f"{_trial_index(trial.experiment_tag)}-{settings[:8]}"


def _trial(
    config: dict[str, float],
    job: TrainingJob,
    cluster: ClusterSettings,
    open_trial_tracker: OpenTrialTracker | None,
) -> None:
    """One trial, with the settings that Tune gives it."""
    from ray import tune

    run_trial(tune.get_context().get_trial_name(), by_player(config), job, cluster, open_trial_tracker)


def _tune_domain(distribution: Distribution) -> Any:
    from ray import tune

    if distribution.log_uniform is not None:
        return tune.loguniform(*distribution.log_uniform)
    if distribution.uniform is not None:
        return tune.uniform(*distribution.uniform)
    return tune.choice(list(distribution.choice or ()))


def _searcher(settings: TuneSettings, metric: str, space: SearchSpace, num_known: int) -> Any:
    if settings.searcher == "random":
        from ray.tune.search import BasicVariantGenerator

        # All are given: a longer search then begins with the trials of a shorter one.
        points = [space.settings_of(number, settings.seed) for number in range(num_known, settings.num_trials)]
        return BasicVariantGenerator(points_to_evaluate=points, max_concurrent=num_concurrent_trials(settings))
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(
        {key: _optuna_distribution(d) for key, d in space.distributions.items()},
        metric=metric,
        mode="min",
        points_to_evaluate=[space.first, *space.further],
        sampler=optuna.samplers.TPESampler(seed=settings.seed),
    )


def _optuna_distribution(distribution: Distribution) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if distribution.choice is not None:
        return CategoricalDistribution(distribution.choice)
    low, high = distribution.log_uniform or distribution.uniform or (0.0, 1.0)
    return FloatDistribution(low, high, log=distribution.log_uniform is not None)


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
