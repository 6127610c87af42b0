"""The gate: may this generator be a challenger, and does it replace the champion? Pure functions, no MLflow.

A metric is compared only with one of the same protocol (extractor, resize, sample count, reference, seed). If the
protocols differ, `decide` raises `ProtocolsDiffer` and the caller measures the champion again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import GanpipeError
from ..section import nearest
from .settings import Condition, RegisterSettings


@dataclass(frozen=True)
class Measurement:
    """The metrics of one generator.

    Attributes:
        name: name of the generator in the gate's reasons, e.g. `version 3` or `the challenger`.
        metrics: values by name.
        protocol: hash of the protocol under which they were measured.
        intervals: metric -> between which values it lies for 95 of 100 sets of other samples of this generator.
        over_seeds: the gate's metric of trainings that differ from this one in their seeds only, its own among them.
    """

    name: str
    metrics: Mapping[str, float]
    protocol: str
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    over_seeds: Sequence[float] = ()


@dataclass(frozen=True)
class Decision:
    """What the gate says, and why.

    Attributes:
        passed: the conditions hold, so the generator may carry the alias `challenger`.
        promote: the generator becomes champion.
        reasons: plain sentences with the numbers.
        compared: false if there is a champion whose metrics cannot be compared with those of the generator.
    """

    passed: bool
    promote: bool
    reasons: list[str]
    compared: bool = True

    @property
    def text(self) -> str:
        """The reasons as one paragraph."""
        return " ".join(self.reasons)


class ProtocolsDiffer(GanpipeError):
    """Two metrics of different protocols: the champion has to be measured again under the challenger's protocol."""


class NotComparable(GanpipeError):
    """The champion cannot be measured as the challenger was: its images are of another size or other classes, or it has
    no metrics and no files."""


def _number(value: float) -> str:
    return f"{value:.6g}"


def metric_of(measurement: Measurement, metric: str, key: str) -> float:
    """The value of `metric` in `measurement`.

    Raises:
        GanpipeError: the metric was not measured; the message names params.yaml's `key` and the most similar metric.
    """
    if metric not in measurement.metrics:
        raise GanpipeError(
            f"{key}: the evaluation of {measurement.name} has no metric {metric!r}; "
            f"{nearest(metric, measurement.metrics)}"
        )
    return float(measurement.metrics[metric])


def check_condition(measurement: Measurement, metric: str, condition: Condition) -> tuple[bool, str]:
    """Whether `measurement` is within the bounds on `metric` (NaN never is), and a sentence that says so."""
    value = metric_of(measurement, metric, f"register.conditions.{metric}")
    bounds = [
        f"at least {_number(condition.min)}" if condition.min is not None else "",
        f"at most {_number(condition.max)}" if condition.max is not None else "",
    ]
    wanted = " and ".join(bound for bound in bounds if bound)
    low = -math.inf if condition.min is None else condition.min
    high = math.inf if condition.max is None else condition.max
    holds = low <= value <= high  # false for NaN
    verb = "holds" if holds else "does not hold"
    return holds, f"Condition on {metric} {verb}: {_number(value)}, wanted {wanted}."


FEWEST_SEEDS = 3
"""Trainings that say how much the seed changes."""
_CONFIDENCE = 1.96


def noise(challenger: Measurement, champion: Measurement, metric: str) -> tuple[float, str]:
    """By how much the metrics of two generators of equal quality differ, at the most in 95 of 100 cases, and what was
    counted, in words.

    Other samples of a generator have another value; a training with another seed makes another generator. Where
    only one of the two generators has an interval, or trainings with other seeds, they stand for the other's, too.
    """
    both = (challenger, champion)
    halves = [(found[1] - found[0]) / 2 for each in both if (found := each.intervals.get(metric))]
    deviations = [statistics.stdev(each.over_seeds) for each in both if len(each.over_seeds) >= FEWEST_SEEDS]
    of_seeds = [_CONFIDENCE * deviation for deviation in deviations]
    squares = [2 * statistics.mean(half**2 for half in found) for found in (halves, of_seeds) if found]
    words = ["other samples"] if halves else []
    words += ["other seeds"] if of_seeds else []
    counted = f"{' and '.join(words)} change" if words else "its scatter is not known"
    if not of_seeds:
        counted += f"; what other seeds change is not known before {FEWEST_SEEDS} trainings differ in the seed only"
    return math.sqrt(sum(squares)), counted


def threshold(challenger: Measurement, champion: Measurement, settings: RegisterSettings) -> tuple[float, str]:
    """The bound that a challenger's metric must be strictly better than, to replace the champion: the champion's value,
    improved by `settings.minimum_improvement`; and why it differs from this value, in words."""
    old = champion.metrics[settings.metric]
    if settings.minimum_improvement == "auto":
        margin, counted = noise(challenger, champion, settings.metric)
        why = f"{_number(margin)} is what {counted}" if margin else counted
    else:
        margin = abs(old) * settings.minimum_improvement
        why = f"an improvement of {settings.minimum_improvement:.3g} of its value" if margin else ""
    return old - margin if settings.lower_is_better else old + margin, why


def _compare(challenger: Measurement, champion: Measurement, settings: RegisterSettings) -> tuple[bool, str]:
    metric = settings.metric
    new, old = (metric_of(measurement, metric, "register.metric") for measurement in (challenger, champion))
    lower = settings.lower_is_better
    word, past = ("lower", "below") if lower else ("higher", "above")
    if not math.isfinite(old):
        return True, f"{metric} of {champion.name}, the champion, is {old}; {challenger.name} has {_number(new)}."
    limit, why = threshold(challenger, champion, settings)
    wins = new < limit if lower else new > limit
    change = f", {(new - old) / abs(old):+.2%}" if old else ""
    outcome = f"{challenger.name} {'wins' if wins else 'does not win'}"
    if settings.minimum_improvement == "auto" and not wins and abs(new - old) <= abs(limit - old):
        outcome = f"the two are not distinguishable, and {champion.name} stays"
    return wins, (
        f"{metric} ({word} is better): {_number(new)} against {_number(old)} of {champion.name}, the champion{change}; "
        f"{past} {_number(limit)}{f' ({why})' if why else ''} was needed, so {outcome}."
    )


def decide(challenger: Measurement, champion: Measurement | None, settings: RegisterSettings) -> Decision:
    """Whether `challenger` passes the conditions and replaces `champion` (None: there is no champion yet).

    Raises:
        ProtocolsDiffer: the champion's metrics were measured under another protocol.
        GanpipeError: a metric that params.yaml names was not measured.
    """
    value = metric_of(challenger, settings.metric, "register.metric")
    checks = [check_condition(challenger, name, bounds) for name, bounds in sorted(settings.conditions.items())]
    reasons = [sentence for _, sentence in checks]
    passed = all(holds for holds, _ in checks)
    if not math.isfinite(value):
        return Decision(False, False, [*reasons, f"{settings.metric} is {value}, which is not a finite number."])
    if not passed:
        return Decision(
            False, False, [*reasons, f"{challenger.name} stays as it is, because a condition does not hold."]
        )
    if champion is None:
        reasons.append(
            f"There is no champion yet, so {challenger.name} becomes the champion with {settings.metric} "
            f"{_number(value)}."
        )
        return Decision(True, True, reasons)
    if champion.protocol != challenger.protocol:
        raise ProtocolsDiffer(
            f"{settings.metric} of {challenger.name} was measured under protocol {challenger.protocol[:12]}, that of "
            f"{champion.name} under {champion.protocol[:12]}: measure the champion again under the new protocol"
        )
    wins, sentence = _compare(challenger, champion, settings)
    return Decision(True, wins, [*reasons, sentence])


_WITHOUT_COMPARISON = {
    "refuse": "so {name} gets no alias",
    "challenger": "so the champion stays",
    "replace": "so {name} replaces it",
}


def decide_without_comparison(challenger: Measurement, settings: RegisterSettings, why: str) -> Decision:
    """Apply `register.not_comparable` to a `challenger` that cannot be compared with the champion.

    Args:
        why: the reason why it cannot be compared, without a full stop.

    Raises:
        GanpipeError: a metric that params.yaml names was not measured.
    """
    alone = decide(challenger, None, settings)
    if not alone.passed:
        return alone
    chosen = settings.not_comparable
    outcome = _WITHOUT_COMPARISON[chosen].format(name=challenger.name)
    reasons = [*alone.reasons[:-1], f"Not comparable: {why}. register.not_comparable is {chosen}, {outcome}."]
    return Decision(chosen != "refuse", chosen == "replace", reasons, compared=False)
