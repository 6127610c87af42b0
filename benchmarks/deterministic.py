"""What train.deterministic costs on this CPU: images a second of one core's time, with and without, for every GAN.

    python -m benchmarks.deterministic            # prints the table
    python -m benchmarks.deterministic --write    # and puts it into docs/reproducibility.md

The two ways take turns, so that a machine that gets slower or faster counts alike for both; and the time is what one
core spent on it, so that what else runs counts for little. The cost is the median over rounds of one round's ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from ganpipe import gans
from ganpipe.gans.base import DataSpec
from ganpipe.training.distributed import World
from ganpipe.training.loop import Loop
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import TrainingState

PAGE = Path(__file__).parents[1] / "docs" / "reproducibility.md"
BEGIN, END = "<!-- table: python -m benchmarks.deterministic -->", "<!-- end of table -->"
MNIST = DataSpec.images(32, 1, 10)


def main() -> None:
    options = _arguments()
    torch.set_num_threads(1)
    lines = ["| GAN | deterministic | any algorithm | cost | in single rounds |", "|---|---:|---:|---:|---|"]
    for name in options.gans or gans.names():
        rates = measure(name, options.rounds, options.steps)
        with_it, without = (statistics.median(rates[key]) for key in (True, False))
        ratios = [b / a - 1 for a, b in zip(rates[True], rates[False], strict=True)]
        spread = f"{min(ratios):+.1%} to {max(ratios):+.1%}"
        lines.append(f"| `{name}` | {with_it:,.0f} | {without:,.0f} | {statistics.median(ratios):+.1%} | {spread} |")
        print(lines[-1], flush=True)
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


def measure(name: str, num_rounds: int, num_steps: int) -> dict[bool, list[float]]:
    """Images a second of one core, by round, with deterministic algorithms (True) and with any (False), by turns."""
    loop = _loop(name)
    rates: dict[bool, list[float]] = {True: [], False: []}
    for number in range(-1, num_rounds):  # the first round warms up
        for deterministic in (True, False):
            # As training/worker.py sets them.
            torch.use_deterministic_algorithms(deterministic)
            torch.utils.deterministic.fill_uninitialized_memory = False
            seen, began = loop.state.progress.images_seen, time.process_time()
            for _ in range(num_steps):
                loop.step()
            if number >= 0:
                images = loop.state.progress.images_seen - seen
                rates[deterministic].append(images / (time.process_time() - began))
    return rates


def _loop(name: str) -> Loop:
    """A training at the sizes of params.yaml: 32 x 32 grey images in batches of 64, the GAN's own settings."""
    settings = TrainSettings(gan=name, num_images=10**9)
    state = TrainingState(name, gans.load(name).Config(), MNIST, settings, World())
    random = np.random.default_rng(0)
    fields = {
        "image": torch.from_numpy(random.uniform(-1, 1, (512, 1, 32, 32))).to(state.dtype),
        "label": torch.from_numpy(random.integers(0, 10, 512)),
    }

    def fetch(start: int, stop: int) -> dict[str, torch.Tensor]:
        rows = torch.arange(start, stop) % 512
        return {key: value[rows] for key, value in fields.items()}

    return Loop(state, fetch, settings, World())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deterministic", description=__doc__)
    parser.add_argument("gans", nargs="*", metavar="GAN", help="default: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="of each turn")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reproducibility.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
