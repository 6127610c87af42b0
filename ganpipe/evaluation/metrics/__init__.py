"""The metrics: one file each, known by the file's name. `base.py` is the interface.

A metric's full name, as in metrics.json and in `register.metric`, ends with the extractor's where it compares features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from ...catalogue import file_names, only_class
from ...errors import GanpipeError
from ...section import nearest

if TYPE_CHECKING:
    from ...gans.base import Gan, GanConfig
    from ...gans.spec import DataSpec
    from .base import Metric

_NOT_METRICS = {"base"}


def names() -> list[str]:
    """The names of all metrics, sorted; imports none of them."""
    return file_names(__path__, without=_NOT_METRICS)


def load(name: str) -> type[Metric]:
    """The metric in the file `name`.py.

    Raises:
        GanpipeError: no such file, or not exactly one metric in it.
    """
    from .base import Metric

    if name not in names():
        raise GanpipeError(f"there is no metric named {name!r}; {nearest(name, names())}")
    return only_class(f"{__name__}.{name}", Metric, f"ganpipe/evaluation/metrics/{name}.py")  # type: ignore[type-abstract]


def applying(gan: type[Gan] | Gan, config: GanConfig, data: DataSpec) -> list[Metric]:
    """The metrics that can be computed for a GAN with such data, by name."""
    return [metric() for metric in map(load, names()) if metric.applies(gan, config, data)]


def by_full_name(full_name: str) -> type[Metric] | None:
    """The metric whose values have this name: `fid_inception` is the metric `fid`. None for a name of no metric.

    Only this metric's file is imported.
    """
    fitting = [name for name in names() if full_name == name or full_name.startswith(f"{name}_")]
    return load(max(fitting, key=len)) if fitting else None


def direction_of(full_name: str) -> Literal["lower", "higher"] | None:
    """Which values of a metric are better; None for a name of no metric."""
    metric = by_full_name(full_name)
    return None if metric is None else metric.better


def beside_of(full_name: str, values: Mapping[str, float]) -> str:
    """What a metric has to be read beside, with its value: `floor 8.1`; empty where it was not measured."""
    metric = by_full_name(full_name)
    if metric is None or metric.beside is None:
        return ""
    words, other = metric.beside
    value = values.get(f"{other}{full_name.removeprefix(metric.name())}", values.get(other))
    return "" if value is None else f"{words} {value:.3g}"


def descriptions(values: Mapping[str, float]) -> dict[str, dict[str, str]]:
    """For each metric: which values are `better`, `beside` what it has to be read, and what it `tells`."""
    return {
        name: {"better": direction_of(name) or "", "beside": beside_of(name, values), "tells": meaning_of(name)}
        for name in values
    }


def meaning_of(full_name: str) -> str:
    """What a metric tells, in one sentence; empty for a name of no metric."""
    metric = by_full_name(full_name)
    return "" if metric is None else metric.tells
