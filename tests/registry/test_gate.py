"""The gate's decision, and its section of params.yaml."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganpipe.errors import GanpipeError
from ganpipe.registry.gate import Measurement, ProtocolsDiffer, decide, threshold
from ganpipe.registry.settings import Condition, RegisterSettings, direction_of
from ganpipe.section import parse

FID = "fid_efficientnet_lite0"
positive = st.floats(min_value=1e-6, max_value=1e6)


def scores(name: str = "version 2", protocol: str = "p" * 64, **metrics: float) -> Measurement:
    return Measurement(name, metrics, protocol)


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        (FID, "lower"),
        ("kid_inception", "lower"),
        ("precision", "higher"),
        ("recall_efficientnet_lite0", "higher"),
        ("beauty", None),
    ],
)
def test_direction_follows_from_the_metrics_name(metric: str, direction: str | None) -> None:
    assert direction_of(metric) == direction


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metric": "beauty"}, "set register.better to lower or higher"),
        ({"conditions": {"recall": {}}}, "register.conditions.recall: got {}; give min, max or both"),
        ({"conditions": {"recall": {"min": 2, "max": 1}}}, "min 2.0 is above max 1.0"),
        ({"conditions": {"recall": {"mim": 2}}}, "register.conditions.recall.mim: unknown key; did you mean 'min'?"),
        ({"minimum_improvement": 1.5}, "register.minimum_improvement: got 1.5"),
        ({"model_name": "a/b"}, "register.model_name: got 'a/b'"),
        ({"metrik": "fid"}, "register.metrik: unknown key; did you mean 'metric'?"),
    ],
)
def test_bad_settings_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(GanpipeError) as caught:
        parse(RegisterSettings, values, "register")
    assert message in str(caught.value)


def test_an_unknown_metric_is_fine_once_its_direction_is_given() -> None:
    assert not RegisterSettings(metric="beauty", better="higher").lower_is_better


def test_every_setting_is_documented() -> None:
    for model in (RegisterSettings, Condition):
        assert all(field.description for field in model.model_fields.values())


def test_the_first_becomes_champion() -> None:
    decision = decide(scores(**{FID: 40.0}), None, RegisterSettings())
    assert decision.passed
    assert decision.promote
    assert decision.reasons == [f"There is no champion yet, so version 2 becomes the champion with {FID} 40."]


@pytest.mark.parametrize("bounds", [{"min": 0.3}, {"max": 0.1}, {"min": 0.25, "max": 0.3}])
def test_the_first_does_not_become_champion_where_a_condition_fails(bounds: dict[str, float]) -> None:
    settings = RegisterSettings(conditions={"recall": Condition(**bounds)})
    decision = decide(scores(**{FID: 40.0, "recall": 0.2}), None, settings)
    assert not decision.passed
    assert not decision.promote
    assert decision.reasons[0].startswith("Condition on recall does not hold: 0.2, wanted ")


def test_bounds_are_inclusive_and_not_a_number_keeps_none() -> None:
    settings = RegisterSettings(conditions={"recall": Condition(min=0.2, max=0.2)})
    assert decide(scores(**{FID: 40.0, "recall": 0.2}), None, settings).passed
    assert not decide(scores(**{FID: 40.0, "recall": math.nan}), None, settings).passed


@pytest.mark.parametrize(
    ("metric", "improvement", "old", "new", "wins"),
    [
        (FID, 0.0, 50.0, 49.9, True),
        (FID, 0.0, 50.0, 50.0, False),
        (FID, 0.0, 50.0, 51.0, False),
        (FID, 0.02, 50.0, 49.5, False),
        (FID, 0.02, 50.0, 48.9, True),
        ("recall", 0.0, 0.5, 0.51, True),
        ("recall", 0.1, 0.5, 0.54, False),
        ("recall", 0.1, 0.5, 0.56, True),
        (FID, 0.0, math.nan, 60.0, True),
        (FID, 0.0, math.inf, 60.0, True),
        (FID, 0.0, 50.0, math.nan, False),
        (FID, 0.0, 50.0, -math.inf, False),
        ("kid_x", 0.1, -0.001, -0.0011, False),
        ("kid_x", 0.1, -0.001, -0.0012, True),
    ],
)
def test_who_wins(metric: str, improvement: float, old: float, new: float, wins: bool) -> None:
    settings = RegisterSettings(metric=metric, minimum_improvement=improvement)
    decision = decide(scores(**{metric: new}), scores("version 1", **{metric: old}), settings)
    assert decision.promote == wins
    assert metric in decision.text


def test_the_reason_has_the_numbers() -> None:
    settings = RegisterSettings(minimum_improvement=0.02)
    decision = decide(scores(**{FID: 49.5}), scores("version 1", **{FID: 50.0}), settings)
    assert decision.reasons == [
        f"{FID} (lower is better): 49.5 against 50 of version 1, the champion, -1.00%; below 49 (an improvement of "
        "0.02 of its value) was needed, so version 2 does not win."
    ]


def test_numbers_of_different_protocols_are_not_compared() -> None:
    with pytest.raises(ProtocolsDiffer, match="measure the champion again"):
        decide(scores(**{FID: 40.0}), scores("version 1", "q" * 64, **{FID: 50.0}), RegisterSettings())


def test_a_metric_that_was_not_measured_is_named_with_the_nearest_one() -> None:
    with pytest.raises(GanpipeError, match=r"register\.metric: .* did you mean 'fid_inception'\?"):
        decide(scores(fid_inception=1.0), None, RegisterSettings(metric="fid_incepton"))
    settings = RegisterSettings(conditions={"recal": Condition(min=0)})
    with pytest.raises(GanpipeError, match=r"register\.conditions\.recal: .* did you mean 'recall'\?"):
        decide(scores(recall=1.0, **{FID: 1.0}), None, settings)


@given(positive, positive, st.floats(min_value=0, max_value=0.99), st.sampled_from([FID, "recall"]))
def test_two_generators_never_beat_each_other(first: float, second: float, improvement: float, metric: str) -> None:
    settings = RegisterSettings(metric=metric, minimum_improvement=improvement)
    one, other = scores(**{metric: first}), scores("version 1", **{metric: second})
    assert not (decide(one, other, settings).promote and decide(other, one, settings).promote)


@given(positive, st.floats(min_value=0, max_value=0.99))
def test_exactly_the_threshold_is_not_enough(old: float, improvement: float) -> None:
    settings = RegisterSettings(minimum_improvement=improvement)
    champion = scores("version 1", **{FID: old})
    limit, _ = threshold(scores(**{FID: old}), champion, settings)
    assert limit <= old
    assert not decide(scores(**{FID: limit}), champion, settings).promote


# -- noise


def noisy(value: float, name: str = "version 2", half: float = 0.0, seeds: Sequence[float] = ()) -> Measurement:
    intervals = {FID: (value - half, value + half)} if half else {}
    return Measurement(name, {FID: value}, "p" * 64, intervals, seeds)


AUTO = RegisterSettings(minimum_improvement="auto")


@pytest.mark.parametrize(
    ("challenger", "champion", "wins"),
    [
        (noisy(49.0, half=0.5), noisy(50.0, half=0.5), True),  # other samples change 0.71
        (noisy(49.5, half=0.5), noisy(50.0, half=0.5), False),
        (noisy(49.5, half=0.5), noisy(50.0), False),  # the champion's interval is not known: as wide as the other's
        (noisy(49.5), noisy(50.0, half=0.5), False),
        (noisy(46.0, half=0.5, seeds=[46, 50, 48]), noisy(50.0, half=0.5), False),  # other seeds change 5.5
        (noisy(46.0, half=0.5), noisy(50.0, half=0.5, seeds=[46, 50, 48]), False),
        (noisy(44.0, half=0.5, seeds=[44, 48, 46]), noisy(50.0, half=0.5), True),
        (noisy(46.0, half=0.5, seeds=[46, 50]), noisy(50.0, half=0.5), True),  # two say too little
        (noisy(49.9), noisy(50.0), True),  # nothing is known of any noise
        (noisy(50.0), noisy(50.0), False),
    ],
)
def test_a_challenger_has_to_be_better_than_noise(challenger: Measurement, champion: Measurement, wins: bool) -> None:
    assert decide(challenger, dataclasses.replace(champion, name="version 1"), AUTO).promote == wins


def test_equal_within_noise_is_called_not_distinguishable() -> None:
    champion = noisy(50.0, "version 1", half=0.5, seeds=[46, 50, 48])
    assert decide(noisy(49.0, half=0.5), champion, AUTO).reasons == [
        f"{FID} (lower is better): 49 against 50 of version 1, the champion, -2.00%; below 44.4114 (5.58863 is what "
        "other samples and other seeds change) was needed, so the two are not distinguishable, and version 1 stays."
    ]
    worse = decide(noisy(51.0, half=0.5), champion, AUTO).text
    assert "not distinguishable" in worse
    clearly_worse = decide(noisy(60.0, half=0.5), champion, AUTO).text
    assert "not distinguishable" not in clearly_worse
    assert clearly_worse.endswith("so version 2 does not win.")


def test_the_gate_says_what_it_does_not_know() -> None:
    told = decide(noisy(49.9), noisy(50.0, "version 1"), AUTO).text
    assert "its scatter is not known" in told
    assert "what other seeds change is not known before 3 trainings differ in the seed only" in told
