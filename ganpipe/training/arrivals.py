"""Shards of a stream arrive. All workers wait for them together, and end at a checkpoint if a shard does not come."""

from __future__ import annotations

from typing import Any

from ..data.loading.dataset import Dataset
from ..data.loading.order import share
from ..errors import GanpipeError, UnavailableError
from .distributed import World
from .feed import Feed
from .observers import Checkpoints
from .settings import TrainSettings
from .state import TrainingState


class ShardArrivals:
    """Has the shards of the next step on this host, and those of the window after it on their way.

    Windows of all lanes end at steps that every worker knows. There all agree on whether to go on.
    """

    def __init__(
        self, dataset: Dataset, feed: Feed, settings: TrainSettings, world: World, checkpoints: Checkpoints
    ) -> None:
        """
        Raises:
            GanpipeError: this host has no room for two windows of each of its workers' lanes.
        """
        self._dataset, self._feed, self._batch_size = dataset, feed, settings.batch_size
        self._world, self._checkpoints = world, checkpoints
        self._here_until = 0
        mine = share(0, settings.batch_size, world.rank, world.size)
        self._lanes = {group: order.lanes_at(*mine) for group, order in feed.orders.items()}
        num_lanes = min(settings.shard_lanes, world.num_here * max(map(len, self._lanes.values())))
        num_read = len(dataset.shards) * num_lanes // settings.shard_lanes + num_lanes  # lanes may share a shard
        dataset.require_window(settings.window_shards, len(self._lanes) * num_lanes, num_read)

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
        untils = []
        for group, order in self._feed.orders.items():
            for lane, needed in enumerate(order.needed(start, stop)):
                untils.append(needed.until)
                if lane in self._lanes[group]:
                    try:
                        self._dataset.expect(f"{group}/{lane}", needed.now, needed.later)
                    except GanpipeError as error:
                        failure = failure or error
        self._here_until = min(untils)
        if self._world.any(failure is not None):
            self._checkpoints.save(state)
            raise failure or UnavailableError("another worker could not read a shard; its own line says why")
