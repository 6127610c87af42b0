"""sample: images from a registered or packaged generator, as one grid or as single files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from PIL import Image

from .. import environment
from ..errors import GanpipeError
from ..evaluation import grids, sample_grids
from ..evaluation.sampling import sample_seeds
from ..packaging.class_names import class_names
from ..packaging.served_model import MAX_SEED, ROWS_AT_ONCE, Generator
from ..params import load_params
from ..registry.open_model import open_generator
from ..registry.versions import CHAMPION
from ..tracking.runs import Tracker
from . import given, output

MAX_IN_A_GRID = 10_000


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ganpipe sample", description=__doc__)
    parser.add_argument(
        "--model",
        default=f"@{CHAMPION}",
        help="a model URI, the folder of a package, or a version or alias of register.model_name; default: @champion",
    )
    parser.add_argument("--num", type=int, default=64, help="how many images; default: 64")
    parser.add_argument("--seed", type=int, default=0, help="as evaluate.seed: 0 gives the evaluation's first images")
    given.add_options(parser, without_label="the classes in turn")
    parser.add_argument(
        "--truncation",
        type=float,
        default=1.0,
        help="above 0, at most 1 (default): lower values give less varied images",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("samples.png"),
        help=f"grid.png, or a folder for single images; default: samples.png; {output.RULE}",
    )
    options = parser.parse_args(argv)
    single = output.is_folder(options.out, ".png")
    seeds = _seeds(options.seed, options.num, single)
    settings = load_params().register_
    with open_generator(
        options.model, Tracker.at(environment.home(), settings.experiment), settings.model_name
    ) as model:
        generator = model.generator
        if pictures := given.pictures_of(model):
            raise GanpipeError(
                f"{model.name}: the GAN {generator.description['gan']!r} makes images of other images "
                f"({', '.join(pictures)}); to give it your images: `ganpipe translate --model {options.model} "
                "--input DIR --output DIR`"
            )
        chosen = given.values_of(model, options)
        in_turn = sample_grids.classes_in_turn(generator.gan, options.num) or {}
        values = in_turn | {name: np.full(options.num, value) for name, value in chosen.items()}
        shown = _shown(generator, chosen) if options.label is not None else ""
        parts = _images(generator, seeds, values, options.truncation)
        if single:
            _write_single(options.out, parts, seeds)
        else:
            # As in the evaluation's grid: one column per class, if the classes are shown in turn.
            images_NCHW = np.concatenate(list(parts))
            columns = sample_grids.num_columns(generator.gan) if options.label is None else None
            output.write(options.out, grids.png(grids.grid(images_NCHW, columns)))
    print(f"{options.out}: {options.num} images of {model.name}{shown}, seeds {seeds[0]} to {seeds[-1]}")
    return 0


def _shown(generator: Generator, chosen: Mapping[str, Any]) -> str:
    """The class of all images, for the last line of the output."""
    assert generator.label is not None
    number, names = chosen[generator.label], class_names(generator.description)
    return f", class {number}{f' ({names[number]})' if names else ''}"


def _seeds(seed: int, num: int, single: bool) -> list[int]:
    if num < 1 or (num > MAX_IN_A_GRID and not single):
        raise GanpipeError(
            f"--num: got {num}; expected 1 to {MAX_IN_A_GRID:,} in a grid; for more images, --out must be a folder"
        )
    seeds = sample_seeds(seed, num)
    if seed < 0 or seeds[-1] > MAX_SEED:
        raise GanpipeError(f"--seed: got {seed}; expected 0 to {MAX_SEED // sample_seeds(1, 1)[0] - 1}")
    return seeds


def _images(
    generator: Generator, seeds: list[int], values: Mapping[str, np.ndarray], truncation: float
) -> Iterator[np.ndarray]:
    """uint8 images, (N, C, H, W), in parts of at most ROWS_AT_ONCE."""
    for start in range(0, len(seeds), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        frame = pd.DataFrame({"seed": seeds[rows], **{name: column[rows] for name, column in values.items()}})
        if generator.has_latents:
            frame["truncation"] = truncation
        try:
            yield generator.rows(frame).transpose(0, 3, 1, 2)
        except MlflowException as error:
            raise GanpipeError(error.message) from None


def _write_single(folder: Path, parts: Iterator[np.ndarray], seeds: list[int]) -> None:
    """Write one file per image, named by its seed."""
    width, index = len(str(seeds[-1])), 0
    for images_NCHW in parts:
        for image_CHW in images_NCHW:
            image_HWC = image_CHW.transpose(1, 2, 0)
            image = Image.fromarray(image_HWC[:, :, 0] if len(image_CHW) == 1 else image_HWC)
            output.write(folder / f"{seeds[index]:0{width}d}.png", grids.png(image))
            index += 1
