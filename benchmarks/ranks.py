"""`python -m benchmarks.ranks`: how well the ranks of short trials tell the ranks of long trainings (docs/search.md).

    python -m benchmarks.ranks acgan --trials 6 --lengths 8000 16000 32000 --end 96000

Trains a GAN on MNIST with the settings of the first trials of a search over `tune.space`, for each of the lengths and
to the end, each time anew, as trials are: their schedules go by their own length. A trial is scored by quick FID, the
end by one of five times as many images. `--seed` is both the search's, which draws the settings, and the trainings'.
The scores are kept in benchmarks/ranks.json one by one, so that a run that was stopped goes on; the table is written
anew.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from scipy import stats

from ganpipe.cpus import usable_cpus
from ganpipe.evaluation.quick_fid import QuickFid
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.gans import load
from ganpipe.training.search_settings import TuneSettings
from ganpipe.training.search_space import search_space
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import Diverged
from ganpipe.training.trials import by_player
from ganpipe.training.worker import TrainingJob, run_training

from .__main__ import commit, machine
from .checkout import ROOT
from .gans import shards
from .kept import Kept

_AT_THE_END = EvaluateSettings.model_validate({"quick": {"num_samples": 5_000, "num_real": 10_000}})


def score(gan: str, seed: int, number: int, num_images: int, is_end: bool, shards_folder: Path) -> dict[str, Any]:
    """Train with the settings of a trial of the search with this seed for so many images, and score the generator."""
    tune = TuneSettings.model_validate(YAML(typ="safe", pure=True).load(ROOT / "params.yaml")["tune"])
    config = load(gan).Config()
    settings = search_space(config, tune).settings_of(number, seed)
    values = {"gan": gan, "num_images": num_images, "checkpoint_every": 10**9, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(
            gan,
            gan,
            config.with_optimizers(by_player(settings)),
            TrainSettings.model_validate(values),
            str(shards_folder),
            folder,
            usable_cpus(),
        )
        start = time.perf_counter()
        try:
            state = run_training(job)
        except Diverged:
            seconds, fid = time.perf_counter() - start, math.inf
        else:
            seconds = time.perf_counter() - start
            with state.averaged() as averaged:
                fid = QuickFid(shards_folder, _AT_THE_END if is_end else EvaluateSettings())(
                    averaged, state.progress
                ).value
    row = {"gan": gan, "seed": seed, "trial": number, "images": num_images, "end": is_end, "settings": settings}
    return {**row, "fid": float(fid), "seconds": seconds, "commit": commit(), "machine": machine()}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per GAN, seed and length of the trials; below, what the ends are."""
    lines = [
        "| GAN | seed | trials | images of a trial | time of a trial | rank correlation with the end "
        "| FID at the end of the best trial |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    below = []
    for gan, seed in sorted({(row["gan"], row["seed"]) for row in rows}):
        of_search = [row for row in rows if (row["gan"], row["seed"]) == (gan, seed)]
        ends = {row["trial"]: row for row in of_search if row["end"]}
        if not ends:
            continue
        for length in sorted({row["images"] for row in of_search if not row["end"]}):
            trials = [r for r in of_search if not r["end"] and r["images"] == length and r["trial"] in ends]
            if len(trials) < 3:
                continue
            at_end = [ends[row["trial"]]["fid"] for row in trials]
            correlation = stats.spearmanr([row["fid"] for row in trials], at_end).statistic
            best = min(trials, key=lambda row: row["fid"])
            lines.append(
                f"| `{gan}` | {seed} | {len(trials)} | {length:,} | {np.median([r['seconds'] for r in trials]):.0f} s "
                f"| {correlation:+.2f} | {ends[best['trial']]['fid']:.1f} (trial {best['trial']}) |"
            )
        fids = [f"{ends[trial]['fid']:.1f}" for trial in sorted(ends)]
        below.append(
            f"`{gan}`, seed {seed}, after {next(iter(ends.values()))['images']:,} images, by trial: {', '.join(fids)}."
        )
    return "\n".join([*lines, "", "The first trial has the GAN's own settings.", "", *(f"- {line}" for line in below)])


KEPT = Kept("ranks", "search.md", "python -m benchmarks.ranks", table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("gan")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8_000, 16_000, 32_000])
    parser.add_argument("--end", type=int, default=96_000)
    parser.add_argument("--cache", type=Path, default=ROOT / ".ganpipe" / "bench-gans", help="where shards are kept")
    options = parser.parse_args()
    folder = shards("mnist", options.cache)
    rows = KEPT.rows()
    done = {(row["gan"], row["seed"], row["trial"], row["images"]) for row in rows}
    for number in range(options.trials):
        for length in [*options.lengths, options.end]:
            if (options.gan, options.seed, number, length) in done:
                continue
            rows.append(score(options.gan, options.seed, number, length, length == options.end, folder))
            KEPT.write(rows)
            print(
                json.dumps({k: rows[-1][k] for k in ("gan", "seed", "trial", "images", "fid", "seconds")}), flush=True
            )


if __name__ == "__main__":
    main()
