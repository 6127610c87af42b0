"""The section `tune` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ..section import Section


class Distribution(Section):
    """Where a value is searched: exactly one of the three."""

    log_uniform: tuple[float, float] | None = None
    """[low, high], low above 0: uniform in the logarithm."""
    uniform: tuple[float, float] | None = None
    """[low, high]: uniform."""
    choice: tuple[float, ...] | None = None
    """A list of values to choose from."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Distribution:
        given = [name for name in ("log_uniform", "uniform", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("expected exactly one of log_uniform: [low, high], uniform: [low, high], choice: [values]")
        bounds = self.log_uniform or self.uniform
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError(f"expected low < high, got {list(bounds)}")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError(f"expected low > 0 for log_uniform, got {list(self.log_uniform)}")
        if self.choice is not None and not self.choice:
            raise ValueError("expected at least one value to choose from")
        return self

    def holds(self, value: float) -> bool:
        """Whether this distribution can give `value`."""
        if self.choice is not None:
            return value in self.choice
        low, high = self.log_uniform or self.uniform or (0.0, 0.0)
        return low <= value <= high


class AdamSpace(Section):
    """What is searched of one player's Adam settings; what is left out keeps the GAN's own value."""

    lr: Distribution | None = None
    """Learning rate, above 0."""
    beta1: Distribution | None = None
    """Decay of the first moment, in [0, 1)."""
    beta2: Distribution | None = None
    """Decay of the second moment, in [0, 1)."""

    @model_validator(mode="after")
    def _within_adams_bounds(self) -> AdamSpace:
        for name, distribution in self.distributions().items():
            values = distribution.log_uniform or distribution.uniform or distribution.choice or ()
            for value in values:
                if name == "lr" and value <= 0:
                    raise ValueError(f"lr must be above 0, got {value}")
                if name != "lr" and not 0 <= value < 1:
                    raise ValueError(f"{name} must be in [0, 1), got {value}")
        return self

    def distributions(self) -> dict[str, Distribution]:
        """Those that are searched, by name."""
        return {name: getattr(self, name) for name in ("lr", "beta1", "beta2") if getattr(self, name) is not None}


class TuneSettings(Section):
    """The search for learning rates and Adam betas, by quick FID."""

    num_trials: int = Field(default=4, ge=0)
    """Trials; the first has the GAN's own settings where the space holds them. 0: no search, the GAN's own settings."""
    num_images: int = Field(default=15_000, ge=1)
    """Length of a trial, in real images."""
    searcher: Literal["random", "tpe"] = "random"
    """Random search, or the tree-structured Parzen estimator (Bergstra 2011) of Optuna, whose choice depends on timing
    where several trials run at a time: `ganpipe pin` keeps it."""
    scheduler: Literal["fifo", "asha", "pbt"] = "fifo"
    """fifo: every trial runs to its end. asha: poor trials are stopped early (Li 2018, arXiv 1810.05934), comparing
    trials at equal images seen; which ones depends on timing, so two searches may choose differently: `ganpipe pin`
    keeps a choice. pbt: population based training (Jaderberg 2017, arXiv 1711.09846): after every exchange_images the
    worst quarter of the trials goes on from checkpoints of the best quarter with settings near to theirs, and the
    result is the best trial's settings over time; its draws are functions of the seed."""
    exchange_images: int = Field(default=3_000, ge=1)
    """pbt: images between two exchanges."""
    grace_images: int = Field(default=5_000, ge=1)
    """asha: no trial is stopped before this many images; the rungs are multiples of it."""
    reduction_factor: int = Field(default=3, ge=2)
    """asha: one in this many trials goes on from each rung."""
    seed: int = Field(default=0, ge=0)
    """Seed of the search."""
    start_from: str | None = None
    """The table of an earlier search (a copy of its trials.csv; path or URL): its best settings, as far as `space`
    holds them, are those of the first trials after the GAN's own. null: none."""
    workers_per_trial: int = Field(default=1, ge=1)
    """Workers of one trial. One runs within the trial's own process."""
    cpus_per_worker: float = Field(default=1, gt=0)
    """CPUs for each of them; as many trials run side by side as the cluster has room for."""
    gpus_per_worker: float = Field(default=0, ge=0)
    """GPUs for each of them."""
    max_concurrent_trials: int | None = Field(default=None, ge=1)
    """Most trials side by side. null: as many as the cluster has room for."""
    space: AdamSpace = AdamSpace(
        lr=Distribution(log_uniform=(1e-4, 1e-2)),
        beta1=Distribution(uniform=(0.0, 0.7)),
        beta2=Distribution(choice=(0.9, 0.99, 0.999)),
    )
    """What is searched for each player."""
    player_space: dict[str, AdamSpace] = Field(default_factory=dict)
    """Exceptions: player -> what is searched for it instead."""

    @model_validator(mode="after")
    def _a_population_exchanges(self) -> TuneSettings:
        if self.scheduler == "pbt" and self.num_trials:
            if self.searcher != "random":
                raise ValueError(
                    f"scheduler pbt draws its settings itself: expected searcher random, got {self.searcher}"
                )
            if self.num_trials < 2:
                raise ValueError("scheduler pbt: expected num_trials of 2 or more (4 and more have quarters)")
            if self.exchange_images >= self.num_images:
                raise ValueError(
                    f"scheduler pbt: expected exchange_images below num_images, which is {self.num_images}, so that "
                    "there is an exchange"
                )
        return self

    @field_validator("grace_images")
    @classmethod
    def _within_a_trial(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("scheduler") == "asha" and value > info.data.get("num_images", value):
            raise ValueError(f"asha: expected at most num_images, which is {info.data['num_images']}")
        return value
