"""Shards of a stream arrive. All workers wait for them together, and end at a checkpoint if a shard does not come."""

from __future__ import annotations

from typing import Any

from ..data.loading.dataset import Dataset
from ..errors import GanpipeError, UnavailableError
from .distributed import World
from .feed import Feed
from .observers import Checkpoints
from .state import TrainingState


class ShardArrivals:
    """Has the shards of the next step on this host, and those of the window after it on their way.

    All workers are in the same windows at the same steps. At the start of a window they agree on whether to go on.
    """

    def __init__(self, dataset: Dataset, feed: Feed, batch_size: int, world: World, checkpoints: Checkpoints) -> None:
        self._dataset, self._feed, self._batch_size = dataset, feed, batch_size
        self._world, self._checkpoints = world, checkpoints
        self._here_until = 0

    def __call__(self, state: TrainingState, *_: Any) -> None:
        """Called between two steps.

        Raises:
            GanpipeError, UnavailableError: a shard cannot be read, here or by another worker; a checkpoint is written.
        """
        start = state.progress.images_seen
        stop = start + self._batch_size * max((turn[0].num_updates for turn in state.turns()), default=1)
        if start >= state.progress.num_images or stop <= self._here_until:
            return
        failure: GanpipeError | None = None
        self._here_until = 0
        for group, order in self._feed.orders.items():
            now, until = order.window_at(start)
            later, following = order.window_at(until)
            crosses = until < stop
            while until < stop:
                now, until = now + later, following
                later, following = order.window_at(until)
            # A step that reads two windows has both here; the next step looks further ahead.
            self._here_until = min(self._here_until or until, stop if crosses else until)
            try:
                self._dataset.expect(group, now, [] if crosses else later)
            except GanpipeError as error:
                failure = failure or error
        if self._world.any(failure is not None):
            self._checkpoints.save(state)
            raise failure or UnavailableError("another worker could not read a shard; its own line says why")
