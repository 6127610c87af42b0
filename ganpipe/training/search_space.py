"""What a search varies, and the settings of each trial: functions of the seed and the trial's number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import GanpipeError
from ..gans.base import GanConfig
from ..section import nearest
from .search_settings import AdamSpace, Distribution, TuneSettings

FlatSettings = dict[str, float]
"""`<player>.<setting>` -> value."""


@dataclass(frozen=True)
class SearchSpace:
    """What a search varies, by `<player>.<setting>`.

    Attributes:
        distributions: where the values are searched.
        first: the settings of the first trial: the GAN's own values, as far as the distributions can give them.
        further: the settings of the next trials, where they come from an earlier search.
    """

    distributions: dict[str, Distribution]
    first: FlatSettings
    further: Sequence[FlatSettings] = field(default_factory=tuple)

    def settings_of(self, number: int, seed: int) -> FlatSettings:
        """The settings of a trial: what is not given is drawn."""
        random = np.random.default_rng([seed, 0, number])
        drawn = {key: draw(distribution, random) for key, distribution in self.distributions.items()}
        given = [self.first, *self.further]
        return drawn | (given[number] if number < len(given) else {})

    def held(self, settings: FlatSettings) -> FlatSettings:
        """Those of the settings that this space can give."""
        own = self.distributions
        return {key: value for key, value in settings.items() if key in own and own[key].holds(value)}


def space_by_player(settings: TuneSettings, players: list[str]) -> dict[str, AdamSpace]:
    """What is searched for each of `players`.

    Raises:
        GanpipeError: tune.player_space names a player that this GAN does not have.
    """
    for name in settings.player_space:
        if name not in players:
            raise GanpipeError(f"tune.player_space.{name}: the GAN has no such player; {nearest(name, players)}")
    return {player: settings.player_space.get(player, settings.space) for player in players}


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
    return SearchSpace(flat, SearchSpace(flat, {}).held(defaults))


def draw(distribution: Distribution, random: np.random.Generator) -> float:
    """A value of the distribution."""
    if distribution.choice is not None:
        return float(random.choice(distribution.choice))
    low, high = distribution.log_uniform or distribution.uniform or (0.0, 0.0)
    if distribution.log_uniform is not None:
        return float(math.exp(random.uniform(math.log(low), math.log(high))))
    return float(random.uniform(low, high))
