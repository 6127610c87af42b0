"""The plot of a search: objective over every setting that was searched."""

from __future__ import annotations

import io
import math

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .trials import SearchResult


def draw_trials(result: SearchResult | None) -> bytes:
    """PNG bytes, the same for the same trials: a panel per setting, the best trial marked. None: says "no search"."""
    keys = [] if result is None else [(p, n) for p, values in result.trials[0].adam.items() for n in values]
    figure = Figure(
        figsize=(3.2 * max(1, min(3, len(keys))), 2.8 * max(1, math.ceil(len(keys) / 3))), layout="constrained"
    )
    FigureCanvasAgg(figure)
    if result is None:
        figure.text(0.5, 0.5, "no search: tune.num_trials is 0", ha="center", va="center")
    else:
        panels = figure.subplots(math.ceil(len(keys) / 3), min(3, len(keys)), sharey=True, squeeze=False).flatten()
        finite = [trial for trial in result.trials if math.isfinite(trial.objective)]
        for panel, (player, name) in zip(panels, keys, strict=False):
            panel.scatter([t.adam[player][name] for t in finite], [t.objective for t in finite], s=18, color="tab:blue")
            panel.scatter([result.best.adam[player][name]], [result.best.objective], s=70, marker="*", color="tab:red")
            panel.set_xlabel(f"{player} {name}")
            if name == "lr":
                panel.set_xscale("log")
        for panel in panels[len(keys) :]:
            panel.set_axis_off()
        for panel in panels[:: min(3, len(keys))]:
            panel.set_ylabel(result.objective, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
