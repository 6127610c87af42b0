"""`python -m benchmarks.recipes`: what each setting does to the FID of a training, as the table of docs/recipes.md.

    python -m benchmarks.recipes "rates doubled" ebgan gans.ebgan.adam_generator.lr=0.002 --images 96000

Trains a GAN on MNIST with these settings, and measures it after half, three quarters and all of the images, each time
under several half-lives of the moving average: one training answers that question for all of them. The row is kept in
benchmarks/recipes.json, and the table is written anew. Two trainings are compared at equal numbers of images; the speed
stands beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ganpipe.cpus import usable_cpus
from ganpipe.data.loading.opening import open_dataset
from ganpipe.evaluation.extractors import efficientnet_lite0
from ganpipe.evaluation.frechet import Gaussian, gaussian_distance
from ganpipe.evaluation.reference import cached_reference
from ganpipe.evaluation.sample_grids import classes_in_turn
from ganpipe.evaluation.sampling import sample_images, sample_seeds
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.training.allocator import keep_freed_memory
from ganpipe.training.distributed import World
from ganpipe.training.ema import Ema
from ganpipe.training.feed import Feed, data_spec_of
from ganpipe.training.loop import Loop
from ganpipe.training.state import TrainingState

from .__main__ import commit, machine
from .checkout import ROOT
from .gans import Trial, shards
from .kept import Kept

HALF_LIVES = {"1500": (1_500, 0.05), "5000": (5_000, 0.05), "10000": (10_000, 0.1), "20000": (20_000, 0.2)}
"""Half-life in images and ramp-up of each moving average; 10000 is the default."""
_DEFAULT = "10000"
_SHARES, _NUM_SAMPLES = (0.5, 0.75, 1.0), 5_000


def measure(trial: Trial, num_images: int, shards_folder: Path) -> list[dict[str, Any]]:
    """Images seen, seconds of training, and FID by half-life, at each of the moments."""
    keep_freed_memory()
    torch.set_num_threads(usable_cpus())
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    dataset = open_dataset(shards_folder, "train")
    config, settings = trial.config(), trial.train_settings(num_images)
    state = TrainingState(trial.gan, config, data_spec_of(dataset.manifest), settings, World())
    state.configure_torch()
    origins = state.gan.origins(config, state.gan.data)
    place = (state.device, state.dtype, state.memory_format)
    feed = Feed(dataset, origins, settings.seed, *place, settings.mirror, settings.shuffling)
    averages = {name: Ema(state.averaged_modules(), *values) for name, values in HALF_LIVES.items()}
    extractor = efficientnet_lite0(64)
    reference = cached_reference(dataset, extractor, EvaluateSettings())
    loop, found, seconds, began = Loop(state, feed, settings, World()), [], 0.0, time.perf_counter()
    waiting = [int(share * num_images) for share in _SHARES]
    while state.progress.images_seen < num_images:
        before = state.progress.images_seen
        loop.step()
        now = state.progress.images_seen
        for average in averages.values():
            average.update(now - before, now)
        if waiting and now >= waiting[0]:
            waiting.pop(0)
            seconds += time.perf_counter() - began
            fids = {}
            for name, average in averages.items():
                with _averaged_by(average, state):
                    classes = classes_in_turn(state.gan, _NUM_SAMPLES)
                    images = sample_images(state.gan, state.progress, sample_seeds(0, _NUM_SAMPLES), classes)
                fids[name] = gaussian_distance(reference.gaussian, Gaussian.fit(extractor.features(images)))
            found.append({"images": now, "seconds": seconds, "fid": fids})
            began = time.perf_counter()
    return found


@contextlib.contextmanager
def _averaged_by(average: Ema, state: TrainingState) -> Iterator[None]:
    state.gan.eval()
    with average.applied():
        yield
    state.gan.train()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line per training, grouped by what it was trained on and for how long."""
    lines = [
        "| GAN | what | images | FID after half | after ¾ | at the end | best half-life of the average | images/s |",
        "|---|---|---:|---:|---:|---:|---|---:|",
    ]
    for row in sorted(rows, key=lambda row: (row["gan"], row["moments"][-1]["fid"][_DEFAULT])):
        shown = [f"{moment['fid'][_DEFAULT]:.1f}" for moment in row["moments"]]
        last = row["moments"][-1]
        best = min(last["fid"], key=lambda name: last["fid"][name])
        lines.append(
            f"| `{row['gan']}` | {row['what']} | {last['images']:,} | {' | '.join(shown)} "
            f"| {int(best):,}: {last['fid'][best]:.1f} "
            f"| {'' if row.get('shared') else format(last['images'] / last['seconds'], ',.0f')} |"
        )
    where = sorted({f"{row['machine']['processor']}, {row['machine']['cores']} cores" for row in rows})
    lines.append(f"\nFID of {_NUM_SAMPLES:,} samples by `efficientnet_lite0`. {'; '.join(where)}. Settings:\n")
    lines += [f"- {row['what']}: `{' '.join(row['settings']) or 'the defaults'}`" for row in rows]
    return "\n".join(lines)


KEPT = Kept("recipes", "recipes.md", "python -m benchmarks.recipes", table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", help="the row's name")
    parser.add_argument("gan")
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="gans.<gan>.* and train.* that are no defaults"
    )
    parser.add_argument("--images", type=int, default=96_000)
    parser.add_argument("--shared", action="store_true", help="the machine has other work: the speed is not told")
    parser.add_argument("--cache", type=Path, default=ROOT / ".ganpipe" / "bench-gans", help="where shards are kept")
    options = parser.parse_intermixed_args()
    trial = Trial(options.gan, "mnist", tuple(options.settings))
    moments = measure(trial, options.images, shards("mnist", options.cache))
    row = {"what": options.what, "gan": options.gan, "settings": options.settings, "moments": moments}
    row |= {"commit": commit(), "machine": machine(), "shared": options.shared}
    rows = KEPT.rows()
    KEPT.write([*[other for other in rows if (other["gan"], other["what"]) != (options.gan, options.what)], row])
    print(json.dumps({key: row[key] for key in ("what", "moments")}), flush=True)


if __name__ == "__main__":
    main()
