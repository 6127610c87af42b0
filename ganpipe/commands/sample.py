"""sample: images from a registered or packaged generator, as one grid or as single files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from PIL import Image

from .. import environment
from ..errors import GanpipeError
from ..evaluation import grids, sample_grids
from ..evaluation.sampling import sample_seeds
from ..params import load_params
from ..registry.class_names import class_names, class_number
from ..registry.opening import opened
from ..registry.served_model import MAX_SEED, ROWS_AT_ONCE, Generator
from ..registry.tracking import Tracker
from ..registry.versions import CHAMPION
from . import output

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
    parser.add_argument("--label", help="class of all images, by its number or name; default: the classes in turn")
    parser.add_argument(
        "--truncation", type=float, default=1.0, help="above 0, at most 1 (default): less is less varied"
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
    with opened(options.model, Tracker.at(environment.home(), settings.experiment), settings.model_name) as model:
        generator = model.generator
        if options.label is not None and generator.label is None:
            raise GanpipeError(
                f"--label: the GAN {generator.description['gan']!r} of {model.name} takes no labels; leave --label out"
            )
        given, shown = sample_grids.classes_in_turn(generator.gan, options.num), ""
        if given is None:
            raise GanpipeError(
                f"{model.name}: the GAN {generator.description['gan']!r} is given {', '.join(generator.conditions)}; "
                "it makes no image of a seed alone"
            )
        if options.label is not None and generator.label is not None:
            label, shown = _label(generator, options.label)
            given = {generator.label: np.full(options.num, label)}
        parts = _images(generator, seeds, given, options.truncation)
        if single:
            _write_single(options.out, parts, seeds)
        else:
            # As in the evaluation's grid: a column a class, where the classes are shown in turn.
            images_NCHW = np.concatenate(list(parts))
            columns = sample_grids.num_columns(generator.gan) if options.label is None else None
            output.write(options.out, grids.png(grids.grid(images_NCHW, columns)))
    print(f"{options.out}: {options.num} images of {model.name}{shown}, seeds {seeds[0]} to {seeds[-1]}")
    return 0


def _label(generator: Generator, text: str) -> tuple[int, str]:
    """The class that --label means, and how to call it."""
    names = class_names(generator.description)
    try:
        number = class_number(text, generator.num_classes, names)
    except GanpipeError as error:
        raise GanpipeError(f"--label: {error}") from None
    return number, f", class {number}{f' ({names[number]})' if names else ''}"


def _seeds(seed: int, num: int, single: bool) -> list[int]:
    if num < 1 or (num > MAX_IN_A_GRID and not single):
        raise GanpipeError(
            f"--num: got {num}; expected 1 to {MAX_IN_A_GRID:,} in a grid, and for more a folder as --out"
        )
    seeds = sample_seeds(seed, num)
    if seed < 0 or seeds[-1] > MAX_SEED:
        raise GanpipeError(f"--seed: got {seed}; expected 0 to {MAX_SEED // sample_seeds(1, 1)[0] - 1}")
    return seeds


def _images(
    generator: Generator, seeds: list[int], given: Mapping[str, np.ndarray], truncation: float
) -> Iterator[np.ndarray]:
    """uint8 images (N, C, H, W), some at a time."""
    for start in range(0, len(seeds), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        frame = pd.DataFrame({"seed": seeds[rows], **{name: values[rows] for name, values in given.items()}})
        if generator.has_latents:
            frame["truncation"] = truncation
        try:
            yield generator.rows(frame).transpose(0, 3, 1, 2)
        except MlflowException as error:
            raise GanpipeError(error.message) from None


def _write_single(folder: Path, parts: Iterator[np.ndarray], seeds: list[int]) -> None:
    """One file an image, named for its seed."""
    width, index = len(str(seeds[-1])), 0
    for images_NCHW in parts:
        for image_CHW in images_NCHW:
            image_HWC = image_CHW.transpose(1, 2, 0)
            image = Image.fromarray(image_HWC[:, :, 0] if len(image_CHW) == 1 else image_HWC)
            output.write(folder / f"{seeds[index]:0{width}d}.png", grids.png(image))
            index += 1
