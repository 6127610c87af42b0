"""Trainings that differ in their seeds only: how much of a metric is chance."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .connection import with_retries
from .runs import STAGE_TAG, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

RECIPE_TAG = "ganpipe.recipe"
"""Digest of everything that decides a training but its seeds."""
SEED_TAG = "ganpipe.seed"
PROTOCOL_TAG = "ganpipe.protocol"


def over_seeds(client: MlflowClient, tracker: Tracker, recipe: str, protocol: str, metric: str) -> list[float]:
    """The metric of each training of this recipe that was evaluated under this protocol, one per seed, by seed.

    Args:
        recipe: value of `RECIPE_TAG`; empty for a training of an earlier version of ganpipe, which finds nothing.
    """
    if not recipe:
        return []
    experiment = client.get_experiment_by_name(tracker.experiment)
    if experiment is None:
        return []
    tags = {STAGE_TAG: "evaluate", RECIPE_TAG: recipe, PROTOCOL_TAG: protocol}
    condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found: dict[str, float] = {}
    token: str | None = None
    while True:
        search = partial(client.search_runs, [experiment.experiment_id], condition, page_token=token)
        page: Any = with_retries(search, tracker.uri)
        for run in page:
            if metric in run.data.metrics:
                found[run.data.tags.get(SEED_TAG, "")] = run.data.metrics[metric]
        token = page.token
        if not token:
            return [found[seed] for seed in sorted(found)]
