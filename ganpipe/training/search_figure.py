"""The plot of a search: objective over every setting that was searched, and how much each of them mattered."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .trials import SearchResult, flat

_COLUMNS = 3
_LEAST_TRIALS = 10
"""Of fewer trials no importance is told: it would be chance."""


def draw_trials(result: SearchResult | None) -> bytes:
    """PNG bytes, the same for the same trials: a panel per setting, the best trial marked, and a panel of importances.
    None: says "no search"."""
    keys = [] if result is None else list(flat(result.trials[0].adam))
    importance = {} if result is None else importances(result)
    num_panels = len(keys) + bool(importance)
    num_rows, num_columns = math.ceil(num_panels / _COLUMNS), min(_COLUMNS, num_panels)
    figure = Figure(figsize=(3.2 * max(1, num_columns), 2.8 * max(1, num_rows)), layout="constrained")
    FigureCanvasAgg(figure)
    if result is None:
        figure.text(0.5, 0.5, "no search: tune.num_trials is 0", ha="center", va="center")
    else:
        panels = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
        finite = [trial for trial in result.trials if math.isfinite(trial.objective)]
        for panel, key in zip(panels, keys, strict=False):
            panel.scatter([flat(t.adam)[key] for t in finite], [t.objective for t in finite], s=18, color="tab:blue")
            panel.scatter([flat(result.best.adam)[key]], [result.best.objective], s=70, marker="*", color="tab:red")
            panel.set_xlabel(key.replace(".", " "))
            if key.endswith(".lr"):
                panel.set_xscale("log")
        for panel in panels[: len(keys) : _COLUMNS]:
            panel.set_ylabel(result.objective, fontsize=8)
        for panel in panels[num_panels:]:
            panel.set_axis_off()
        if importance:
            panels[len(keys)].barh(list(importance), list(importance.values()), color="tab:blue")
            panels[len(keys)].invert_yaxis()
            panels[len(keys)].tick_params(axis="y", labelsize=7)
            panels[len(keys)].set_xlabel("importance (PED-ANOVA)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def importances(result: SearchResult) -> Mapping[str, float]:
    """How much each setting decides whether a trial is among the best (PED-ANOVA, Watanabe 2023, arXiv 2304.10255, by
    Optuna), the most important first; they add up to 1. Empty where too few trials say anything."""
    import optuna
    from optuna.distributions import BaseDistribution, FloatDistribution
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    finite = [trial for trial in result.trials if math.isfinite(trial.objective)]
    if len(finite) < _LEAST_TRIALS:
        return {}
    values = {key: [flat(trial.adam)[key] for trial in finite] for key in flat(finite[0].adam)}
    ranges = {key: (min(found), max(found)) for key, found in values.items() if min(found) < max(found)}
    if not ranges:
        return {}
    distributions: dict[str, BaseDistribution] = {
        key: FloatDistribution(low, high, log=key.endswith(".lr")) for key, (low, high) in ranges.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study()
        for trial in finite:
            params = {key: flat(trial.adam)[key] for key in ranges}
            added = optuna.trial.create_trial(params=params, distributions=distributions, value=trial.objective)
            study.add_trial(added)
        found: Mapping[str, float] = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {key: value for key, value in found.items() if math.isfinite(value)}
