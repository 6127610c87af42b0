"""Population based training (Jaderberg 2017, arXiv 1711.09846): settings that change over the course of a training.

Members of a population train side by side. After every `tune.exchange_images` images the worst quarter goes on from
checkpoints of the best quarter, with settings that are changed a little (section 3.1: truncation selection, perturb and
resample). The result is the schedule of settings that the best member has gone through.

Ray Tune's own scheduler draws from global random states and as trials happen to end. Here the generations are
synchronous, each a run of Tune, and all draws are functions of the seed: the same search has the same result, and one
that is killed goes on with the generation in which it was.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np

from .search_settings import Distribution, TuneSettings
from .search_space import FlatSettings, SearchSpace, draw
from .settings import ClusterSettings
from .trials import (
    AdamByPlayer,
    OpenTrialTracker,
    SearchResult,
    Trial,
    by_player,
    keep_keys_here,
    num_concurrent_trials,
    run_trial,
    run_trials,
    trial_cluster,
    trial_job,
)
from .worker import TrainingJob

_QUARTER = 0.25
_CHANGES = (0.8, 1.2)
"""A setting is multiplied by either."""
_RESAMPLED = 0.25
"""Probability that a setting is drawn anew instead."""


@dataclass(frozen=True)
class Member:
    """A member of one generation.

    Attributes:
        settings: with which it trains in this generation.
        parent: the member of the generation before from whose checkpoint it goes on; itself, as a rule.
    """

    settings: FlatSettings
    parent: int


# --- selection: pure functions


def first_generation(space: SearchSpace, settings: TuneSettings) -> list[Member]:
    """Member 0 has the GAN's own settings where the space holds them; the others are drawn."""
    return [Member(space.settings_of(number, settings.seed), number) for number in range(settings.num_trials)]


def next_generation(
    members: Sequence[Member], scores: Sequence[float], space: SearchSpace, seed: int, generation: int
) -> list[Member]:
    """The members after an exchange.

    Args:
        scores: of each member, lower is better; infinite for a training that diverged.
        generation: the number of the new one, from 1 on.
    """
    ranked = sorted(range(len(members)), key=lambda number: (scores[number], number))
    size = max(1, math.floor(len(members) * _QUARTER))
    best = [number for number in ranked[:size] if math.isfinite(scores[number])]
    replaced = {*ranked[-size:], *(number for number in ranked if not math.isfinite(scores[number]))} - set(best)
    found = []
    for number, member in enumerate(members):
        random = np.random.default_rng([seed, generation, number])
        if number in replaced and best:
            parent = int(random.choice(best))
            found.append(Member(explore(members[parent].settings, space, random), parent))
        else:
            found.append(Member(member.settings, number))
    return found


def explore(settings: FlatSettings, space: SearchSpace, random: np.random.Generator) -> FlatSettings:
    """Settings near to these, within the space."""
    return {key: _near(value, space.distributions[key], random) for key, value in settings.items()}


def _near(value: float, distribution: Distribution, random: np.random.Generator) -> float:
    resampled, change = random.random() < _RESAMPLED, float(random.choice(_CHANGES))
    if resampled:
        return draw(distribution, random)
    if distribution.choice is not None:
        ordered = sorted(distribution.choice)
        at = min(range(len(ordered)), key=lambda number: abs(ordered[number] - value))
        return ordered[min(max(at + (1 if change > 1 else -1), 0), len(ordered) - 1)]
    low, high = distribution.log_uniform or distribution.uniform or (value, value)
    return min(max(value * change, low), high)


def over_time(generations: Sequence[Sequence[Member]], best: int, settings: TuneSettings) -> list[dict[str, Any]]:
    """The settings that the member `best` of the last generation has gone through, as `train.over_time` has them.
    Generations with equal settings are one."""
    line: list[FlatSettings] = []
    number = best
    for members in reversed(generations):
        line.append(members[number].settings)
        number = members[number].parent
    found: list[dict[str, Any]] = []
    for generation, own in enumerate(reversed(line)):
        until, players = end_of(generation, settings) / settings.num_images, by_player(own)
        if found and found[-1]["players"] == players:
            found[-1]["until"] = until
        else:
            found.append({"until": until, "players": players})
    return found


def end_of(generation: int, settings: TuneSettings) -> int:
    """Images after which a generation ends; the first is 0."""
    return min((generation + 1) * settings.exchange_images, settings.num_images)


# --- running it


def train_population(
    job: TrainingJob,
    settings: TuneSettings,
    cluster: ClusterSettings,
    space: SearchSpace,
    open_trial_tracker: OpenTrialTracker | None,
) -> SearchResult:
    """Run all generations; Ray must be running. A search that was stopped in the same `job.folder` goes on.

    Raises:
        GanpipeError: a member failed with an error of the code, or all diverged.
        UnavailableError: processes were lost more often than cluster.max_failures.
    """
    keep_keys_here()
    num_generations = math.ceil(settings.num_images / settings.exchange_images)
    generations, trials = [first_generation(space, settings)], list[Trial]()
    for number in range(num_generations):
        generation = _Generation(job, settings, cluster, number, generations[-1])
        scores = generation.known_scores()
        if scores is None:
            scores = generation.run(open_trial_tracker)
        trials += generation.trials(scores)
        _ = SearchResult(job.score_name, trials).best  # raises where all members have diverged
        members = next_generation(generations[-1], scores, space, settings.seed, number + 1)
        moved = {at: one.parent for at, one in enumerate(members) if one.parent != at}
        told = ", ".join(f"{at} from {parent}" for at, parent in moved.items())
        print(
            f"{job.name}: generation {number + 1} of {num_generations}: best {job.score_name} {min(scores):.2f}"
            + (f"; going on elsewhere: {told}" if told and number + 1 < num_generations else ""),
            flush=True,
        )
        if number + 1 < num_generations:
            generations.append(members)
    found = SearchResult(job.score_name, trials)
    best = found.best.number - (num_generations - 1) * settings.num_trials
    return dataclasses.replace(found, over_time=over_time(generations, best, settings))


@dataclass(frozen=True)
class _Generation:
    """One run of Tune: all members from one exchange to the next."""

    job: TrainingJob
    settings: TuneSettings
    cluster: ClusterSettings
    number: int
    members: Sequence[Member]

    @property
    def _name(self) -> str:
        return f"generation-{self.number}"

    @property
    def _until(self) -> int:
        return end_of(self.number, self.settings)

    @property
    def _result_path(self) -> tuple[Any, str]:
        found: tuple[Any, str] = fsspec.core.url_to_fs(f"{self.job.folder}/search/{self._name}.json")
        return found

    def known_scores(self) -> list[float] | None:
        """The scores, where an earlier process has run this generation to its end."""
        filesystem, path = self._result_path
        filesystem.invalidate_cache()
        try:
            return [float(score) for score in json.loads(filesystem.cat_file(path))]
        except (FileNotFoundError, ValueError):  # cut short: Tune still knows how its trials ended
            return None

    def trials(self, scores: Sequence[float]) -> list[Trial]:
        first = self.number * len(self.members)
        return [
            Trial(first + at, by_player(member.settings), self._until, score)
            for at, (member, score) in enumerate(zip(self.members, scores, strict=True))
        ]

    def run(self, open_trial_tracker: OpenTrialTracker | None) -> list[float]:
        """Train the members and keep their scores."""
        from ray import tune

        parameters = {
            "job": dataclasses.replace(trial_job(self.job, self.settings), end_at=self._until),
            "cluster": trial_cluster(self.cluster, self.settings),
            "members": list(self.members),
            "generation": self.number,
            "open_trial_tracker": open_trial_tracker,
        }
        results = run_trials(
            tune.with_parameters(_member, **parameters),
            self.job,
            self.settings,
            self.cluster.max_failures,
            self._name,
            len(self.members),
            self._trial_name,
            {"member": tune.grid_search(list(range(len(self.members))))},
            max_concurrent_trials=num_concurrent_trials(self.settings),
        )
        ended: dict[int, Any] = {int(results[at].config["member"]): results[at].metrics for at in range(len(results))}
        scores = [float(ended[number][self.job.score_name]) for number in range(len(self.members))]
        filesystem, path = self._result_path
        filesystem.pipe_file(path, json.dumps(scores).encode())
        return scores

    def _trial_name(self, trial: Any) -> str:
        return member_name(self.number, int(trial.config["member"]))


def member_name(generation: int, number: int) -> str:
    """Names a member's trial, and its folder."""
    return f"{generation}-{number}"


def _member(
    config: Mapping[str, int],
    job: TrainingJob,
    cluster: ClusterSettings,
    members: Sequence[Member],
    generation: int,
    open_trial_tracker: OpenTrialTracker | None,
) -> None:
    """One member's trial: from its parent's checkpoint to the next exchange."""
    number = config["member"]
    member, work = members[number], f"{job.folder}/search/work"
    adam: AdamByPlayer = by_player(member.settings)
    if generation > 0:
        own, parents = (
            dataclasses.replace(job, folder=f"{work}/{member_name(at, which)}").store
            for at, which in ((generation, number), (generation - 1, member.parent))
        )
        if not own.list():
            images_seen = parents.list()[-1]
            own.put(images_seen, parents.content(images_seen))
    run_trial(member_name(generation, number), adam, job, cluster, open_trial_tracker)
