"""trials: the trials of the last search, best first, and which one the training took."""

from __future__ import annotations

import argparse
import json
import math

from ..errors import GanpipeError
from ..stages.common import TUNE, read_json
from ..stages.train import OVER_TIME, adam_of
from ..training.trials import flat, read_table


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ganpipe trials", description=__doc__)
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    options = parser.parse_args(argv)
    path = TUNE / "trials.csv"
    chosen = read_json(TUNE / "best.json", made_by="tune")
    if not chosen:
        raise GanpipeError(f"{path}: there was no search (tune.num_trials is 0); the GAN's own settings were taken")
    text = path.read_text(encoding="utf-8")
    trials = read_table(text)
    taken = chosen[OVER_TIME][-1]["players"] if OVER_TIME in chosen else adam_of(chosen)
    longest = max(trial.images_seen for trial in trials)
    trials.sort(key=lambda trial: (-trial.images_seen, trial.objective, trial.number))
    best = next((trial for trial in trials if trial.images_seen == longest and trial.adam == taken), None)
    if options.json:
        shown = [
            {
                "trial": trial.number,
                "images_seen": trial.images_seen,
                "objective": trial.objective if math.isfinite(trial.objective) else None,
                "settings": trial.adam,
                "chosen": trial is best,
            }
            for trial in trials
        ]
        print(json.dumps(shown, indent=2))
        return 0
    names = list(flat(trials[0].adam))
    header = ["", "trial", "images", text.splitlines()[0].rpartition(",")[2], *names]
    rows = [
        [
            "*" if trial is best else "",
            str(trial.number),
            f"{trial.images_seen:,}",
            f"{trial.objective:.2f}",
            *(f"{flat(trial.adam)[name]:.3g}" for name in names),
        ]
        for trial in trials
    ]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    if OVER_TIME in chosen:
        print(f"the training follows {len(chosen[OVER_TIME])} parts: settings over time")
    return 0
