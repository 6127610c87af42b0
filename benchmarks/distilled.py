"""`python -m benchmarks.distilled`: a teacher and its student beside each other, as the table of docs/gans.md.

    python -m benchmarks.distilled                # 80,000 images for both together

Beside them stand AC-GANs whose generator is as small as the student's: with as many images as the student has, and with
as many as teacher and student have together.
Speed is that of sampling on this machine, each in turn, several times; the median counts.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ganpipe.data.loading.opening import open_dataset
from ganpipe.evaluation.evaluate import evaluate
from ganpipe.evaluation.extractors import efficientnet_lite0
from ganpipe.evaluation.grids import grid, png
from ganpipe.evaluation.measured import Subject
from ganpipe.evaluation.reference import cached_reference
from ganpipe.evaluation.sample_grids import classes_in_turn, num_columns
from ganpipe.evaluation.sampling import sample_images, sample_seeds
from ganpipe.evaluation.settings import EvaluateSettings
from ganpipe.gans.base import Gan
from ganpipe.training.state import TrainingState

from .__main__ import commit, machine
from .checkout import ROOT
from .gans import Trial, shards, trained
from .kept import Kept
from .measure import alternate, median

IMAGES = 80_000
_NUM_SHOWN, _NUM_TIMED, _ROUNDS = 30, 1_000, 5
_PICTURE = ROOT / "docs" / "images" / "distillation.png"


@dataclasses.dataclass(frozen=True)
class Shown:
    """A line of the table: a generator, the images that it learned from, and a training of which it takes the
    generator's place."""

    what: str
    images: int
    state: TrainingState
    generator: nn.Module

    def samples(self, num_samples: int) -> Any:
        """Its first samples, with the classes in turn."""
        gan = self.state.gan
        gan.generator = self.generator
        seeds, classes = sample_seeds(0, num_samples), classes_in_turn(gan, num_samples)
        return sample_images(gan, self.state.progress, seeds, classes)

    def speed(self) -> float:
        """Images per second."""
        begin = time.perf_counter()
        self.samples(_NUM_TIMED)
        return _NUM_TIMED / (time.perf_counter() - begin)

    def measured(self, shards_folder: Path) -> dict[str, Any]:
        """Its size and metrics."""
        settings, extractor = EvaluateSettings(), efficientnet_lite0(64)
        dataset, gan = open_dataset(shards_folder, "train"), self.state.gan
        gan.generator = self.generator
        reference = cached_reference(dataset, extractor, settings)
        subject = Subject(gan, self.state.progress, dataset, reference, extractor, settings, averaged=True)
        found = evaluate(subject, with_figures=False)
        parameters = sum(parameter.numel() for parameter in self.generator.parameters())
        return {"parameters": parameters, "metrics": dict(found.metrics), "protocol": found.protocol.hash}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per generator."""
    lines = [
        "| generator | images seen | parameters | images/s | FID | class accuracy |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        metrics = {name.removesuffix("_efficientnet_lite0"): value for name, value in row["metrics"].items()}
        lines.append(
            f"| {row['what']} | {row['images']:,} | {row['parameters']:,} | {row['images_per_second']:,.0f} "
            f"| {metrics['fid']:.1f} | {metrics['class_accuracy']:.2f} |"
        )
    first = rows[0]
    where = f"{first['machine']['processor']}, {first['machine']['cores']} cores"
    lines.append(f"\nMNIST. {where}; protocol {first['protocol']}; commit {first['commit']}.")
    return "\n".join(lines)


KEPT = Kept("distilled", "gans.md", "python -m benchmarks.distilled", table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distilled", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--cache", type=Path, default=ROOT / ".ganpipe" / "bench-gans", help="where shards are kept")
    options = parser.parse_args()
    folder = shards("mnist", options.cache)
    distillation = Trial("distillation", "mnist")
    config = distillation.config().model_dump()
    small = Trial("acgan", "mnist", (f"gans.acgan.generator_width={config['generator_width']}",))
    num_taught = int(options.images * (1 - config["teaching"]))
    with contextlib.ExitStack() as stack:

        def learned(trial: Trial, num_images: int) -> tuple[TrainingState, Gan]:
            state, _ = trained(trial, num_images, folder)
            return state, stack.enter_context(state.averaged())

        both, gan = learned(distillation, options.images)
        lines = [
            Shown("the teacher", options.images - num_taught, both, gan.teacher),
            Shown("its student", num_taught, both, gan.generator),
            *(
                Shown(f"as small, without a teacher (`acgan`){more}", num_images, state, alone.generator)
                for more, num_images in (("", num_taught), (", for as long as both", options.images))
                for state, alone in [learned(small, num_images)]
            ),
        ]
        rows = [{"what": line.what, "images": line.images, **line.measured(folder)} for line in lines]
        speeds = alternate({line.what: line.speed for line in lines}, rounds=_ROUNDS)
        _PICTURE.write_bytes(png(grid(lines[1].samples(_NUM_SHOWN), num_columns(gan))))
    made = {"commit": commit(), "machine": machine()}
    KEPT.write([{**row, **made, "images_per_second": median(speeds[row["what"]])} for row in rows])


if __name__ == "__main__":
    main()
