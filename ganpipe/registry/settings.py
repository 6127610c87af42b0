"""The section `register:` of params.yaml: under which name a generator is registered, and what makes a champion."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ..evaluation.metrics import direction_of
from ..section import Section

Share = Annotated[float, Field(ge=0, lt=1)]


class Condition(Section):
    """Bounds that one metric must keep, both inclusive."""

    min: float | None = None
    """Lowest value allowed; no lower bound if left out."""
    max: float | None = None
    """Highest value allowed; no upper bound if left out."""

    @model_validator(mode="after")
    def _not_empty(self) -> Condition:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}, so no value could satisfy both")
        return self


class RegisterSettings(Section):
    """Under which name a generator is registered, and what makes it the champion."""

    model_name: str = Field("ganpipe-mnist", pattern=r"^[^/:]+$", max_length=250)
    """Name in MLflow's model registry, without / and :. Only generators of the same name compete with each other."""
    experiment: str = Field("ganpipe", min_length=1, max_length=500)
    """MLflow experiment that holds the runs."""
    require_commit: bool = True
    """Whether training and registering need a git commit to name as their origin. With false, models are registered
    with the commit `none` if git knows no commit: nobody can say later which code made them."""
    metric: str = Field("fid_efficientnet_lite0", min_length=1)
    """Which of the evaluation's metrics the gate compares."""
    better: Literal["auto", "lower", "higher"] = "auto"
    """Whether lower or higher values of `metric` are better; `auto` asks the metric itself."""
    minimum_improvement: Share | Literal["auto"] = 0.0
    """How much better than the champion a challenger must be, as a fraction of the champion's value: with 0.02, a
    champion's FID of 50 is beaten by less than 49. With 0, any strictly better value wins; an equal one never does.
    `auto`: better by more than noise, that is by more than other samples of the two change, and other seeds, where
    MLflow has 3 trainings that differ in the seed only (as the flow `sweep` makes them)."""
    conditions: dict[str, Condition] = Field(default_factory=dict)
    """Metric -> bounds that must hold before a generator becomes challenger or champion, e.g. recall: {min: 0.1}."""

    not_comparable: Literal["refuse", "challenger", "replace"] = "challenger"
    """What happens to a generator that satisfies the conditions and cannot be compared with the champion, because the
    champion makes images of another size, other channels or other classes, or its files are gone. `challenger`: the
    generator becomes challenger, the champion stays, `ganpipe check` warns. `replace`: it becomes the champion.
    `refuse`: `ganpipe check` ends with an error before any long work; a generator that is registered nevertheless gets
    no alias."""

    @field_validator("minimum_improvement", mode="before")
    @classmethod
    def _auto_or_a_share(cls, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value != "auto" and not (is_number and 0 <= value < 1):
            raise ValueError("expected auto, or a number of at least 0 and below 1")
        return value

    @property
    def lower_is_better(self) -> bool:
        """Direction of `metric`."""
        return (direction_of(self.metric) if self.better == "auto" else self.better) == "lower"

    @model_validator(mode="after")
    def _direction_known(self) -> RegisterSettings:
        if self.better == "auto" and direction_of(self.metric) is None:
            raise ValueError(
                f"whether lower or higher values of the metric {self.metric!r} are better is not known; "
                "set register.better to lower or higher"
            )
        return self
