"""translate: writes, for each image in a folder, the image that a generator makes of it.

For a generator that is given frames, an image holds them one below another. For a generator that completes images, what
is transparent in an image is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from .. import environment
from ..cpus import usable_cpus
from ..data.images import decoding
from ..data.images.decoding import UnreadableImage
from ..data.parallel import progress
from ..data.settings import DataSettings
from ..data.shards.left_out import Tally, summary_lines
from ..data.sources import files
from ..data.sources.base import EncodedFile
from ..errors import EXIT_MENDABLE, GanpipeError
from ..packaging.served_model import MAX_SEED
from ..params import load_params
from ..registry.open_model import OpenedGenerator, open_generator
from ..registry.versions import CHAMPION
from ..section import nearest, parse
from ..tracking.runs import Tracker
from . import given, output

IMAGES_AT_ONCE = 16
"""Images in one forward pass; the next ones are read meanwhile."""


@dataclass(frozen=True)
class _File:
    """An image file, its name for people, and the path of the image that is made of it."""

    shown: str
    path: Path
    target: Path


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    params = load_params()
    output.require_folder(options.output, "--output")
    found = _files(options.input, options.output)
    if not options.force:
        _require_new([file.target for file in found])
    register = params.register_
    with open_generator(
        options.model, Tracker.at(environment.home(), register.experiment), register.model_name
    ) as model:
        name = _picture(model, options.direction)
        spec = model.generator.conditions[name]
        changes = {key: value for key in ("shape", "enlarge", "background") if (value := getattr(options, key))}
        # Not model_copy, because it does not check the values.
        settings = parse(
            DataSettings,
            {**params.data.model_dump(), **changes, "image_size": spec["size"], "channels": spec["channels"]},
            prefix="--",
        )
        num_made = _translate(model, name, found, settings, _columns(model, options))
    skipped = f"; {len(found) - num_made:,} of {_num(len(found), 'file')} could not be read"
    print(f"{options.output}: {_num(num_made, 'image')} of {model.name}{skipped if num_made < len(found) else ''}")
    return 0 if num_made else EXIT_MENDABLE


def _num(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _require_new(targets: list[Path]) -> None:
    if there := [target for target in targets if os.path.lexists(target)]:
        are = f"and {len(there) - 1:,} more are" if len(there) > 1 else "is"
        raise GanpipeError(f"--output: {there[0]} {are} there; choose another folder, or --force to replace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ganpipe translate", description=__doc__)
    parser.add_argument(
        "--model",
        default=f"@{CHAMPION}",
        help="a model URI, the folder of a package, or a version or alias of register.model_name; default: @champion",
    )
    parser.add_argument(
        "--input", type=Path, required=True, metavar="DIR", help="a folder of images, subfolders included; or one image"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="a folder, made if missing, for one PNG per image, of the same name; files are replaced only with --force",
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.add_argument("--direction", help="for a model with several directions, such as a_to_b; default: the first")
    parser.add_argument(
        "--shape", choices=("crop", "pad"), help="how an image becomes square; default: data.shape in params.yaml"
    )
    parser.add_argument(
        "--enlarge",
        choices=("pad", "resize"),
        help="what is done with a small image; default: data.enlarge in params.yaml",
    )
    parser.add_argument(
        "--background", metavar="COLOUR", help="behind transparent pixels; default: data.background in params.yaml"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of everything that is drawn, the same for all images; default: 0"
    )
    parser.add_argument(
        "--truncation",
        type=float,
        default=1.0,
        help="above 0, at most 1 (default): lower values give less varied images",
    )
    given.add_options(parser, without_label="drawn from the seed")
    return parser


def _files(source: Path, target: Path) -> list[_File]:
    """The images in `source`, with the paths of their results in `target`.

    Raises:
        GanpipeError: there are no images, two results would have the same path, or a result would replace its image.
    """
    left_out = Tally()
    parts: list[files.Parts]
    if source.is_file():
        root, parts = source.parent, [(source.name,)]
    elif source.is_dir():
        root = source
        if target.resolve().is_relative_to(source.resolve()):
            raise GanpipeError(f"--output: {target} lies in --input; choose a folder outside of it")
        try:
            parts = list(files.images_among(root, files.walk(root, left_out=left_out), left_out))
        except OSError as error:
            raise GanpipeError(f"--input: {error.filename} cannot be listed ({error.strerror})") from None
    else:
        raise GanpipeError(f"--input: {source} does not exist")
    if not parts:
        but = "".join(f"; {line}" for line in summary_lines(left_out.result()))
        raise GanpipeError(f"--input: {source} holds no image (a file that ends in .png, .jpg, .webp, ...){but}")
    found = [
        _File(files.display_path(each), root.joinpath(*each), target.joinpath(*each[:-1], f"{_stem(each[-1])}.png"))
        for each in parts
    ]
    by_target: dict[Path, _File] = {}
    for file in found:
        if (other := by_target.setdefault(file.target, file)) is not file:
            raise GanpipeError(f"--input: {other.shown} and {file.shown} would both become {file.target}; rename one")
        if file.target.resolve() == file.path.resolve():
            raise GanpipeError(f"--output: {file.target} is the image itself; choose another folder")
    return found


def _stem(name: str) -> str:
    """`name` without an image's extension: `photo.png` -> `photo`, but `photo.0001` stays, because it has none."""
    return os.path.splitext(name)[0] if files.is_image(name) else name


def _picture(model: OpenedGenerator, direction: str | None) -> str:
    """The name of the condition that takes the images.

    Raises:
        GanpipeError: the model takes no image, takes several images at once, or has no such direction.
    """
    pictures, choices = given.pictures_of(model), model.generator.choices
    gan = f"the GAN {model.generator.description['gan']!r} of {model.name}"
    if not pictures:
        raise GanpipeError(f"{gan} takes no image; `ganpipe sample --model ...` shows what it makes")
    if direction is not None and direction not in choices:
        hint = nearest(direction, choices) if choices else f"{gan} has one direction; leave --direction out"
        raise GanpipeError(f"--direction: got {direction[:100]!r}; {hint}")
    if choices:
        return choices[direction] if direction is not None else next(iter(choices.values()))
    if (name := given.mask_of(model)) is not None:
        pictures.remove(name)
    if len(pictures) > 1:
        raise GanpipeError(f"{gan} takes several images at once ({', '.join(pictures)}), but a file is one image")
    return pictures[0]


def _columns(model: OpenedGenerator, options: argparse.Namespace) -> dict[str, Any]:
    """The columns beside the image, with one value for all rows."""
    if not 0 <= options.seed <= MAX_SEED:
        raise GanpipeError(f"--seed: got {options.seed}; expected 0 to {MAX_SEED}")
    if not 0 < options.truncation <= 1:
        raise GanpipeError(f"--truncation: got {options.truncation:g}; expected a number above 0 and at most 1")
    truncation = {"truncation": options.truncation} if model.generator.has_latents else {}
    return {"seed": options.seed, **truncation, **given.values_of(model, options)}


def _translate(
    model: OpenedGenerator, name: str, found: list[_File], settings: DataSettings, columns: Mapping[str, Any]
) -> int:
    """Write the result of each file. For a file that cannot be read, a line on stderr says why.

    Returns:
        How many results were written.
    """
    num_made = 0
    with progress("translate", len(found), "img") as bar:
        fitting = _Fitting(settings, model.generator.conditions[name].get("num_frames", 1), given.mask_of(model))
        for batch in _read_ahead(found, fitting):
            sound: list[tuple[_File, list[bytes]]] = []
            for file, content in batch:
                if isinstance(content, UnreadableImage):
                    bar.write(f"{file.shown}: {content}", file=sys.stderr)
                else:
                    sound.append((file, content))
            if sound:
                names = [name] if fitting.mask is None else [name, fitting.mask]
                pictures = {each: [content[number] for _, content in sound] for number, each in enumerate(names)}
                frame = pd.DataFrame({**pictures, **columns})
                try:
                    made_NHWC = model.generator.rows(frame)
                except MlflowException as error:
                    raise GanpipeError(f"{sound[0][0].shown} and those after it: {error.message}") from None
                for (file, _), made_HWC in zip(sound, made_NHWC, strict=True):
                    output.write(file.target, _png(made_HWC))
            num_made += len(sound)
            bar.update(len(batch))
    return num_made


@dataclass(frozen=True)
class _Fitting:
    """How files become what the model takes.

    Attributes:
        mask: name of the condition that says what is missing: the transparent pixels of a file; None if there is none.
    """

    settings: DataSettings
    num_frames: int
    mask: str | None


_Read = tuple[_File, list[bytes] | UnreadableImage]


def _read_ahead(found: list[_File], fitting: _Fitting) -> Iterator[list[_Read]]:
    """The files in batches, each as a PNG of the model's size, and one of its mask if there is one. The next batch is
    read while the caller uses one."""
    with ThreadPoolExecutor(min(4, usable_cpus())) as pool:
        waiting: list[Future[_Read]] = []
        for start in range(0, len(found), IMAGES_AT_ONCE):
            batch = found[start : start + IMAGES_AT_ONCE]
            coming = [pool.submit(partial(_read, file, fitting)) for file in batch]
            if waiting:
                yield [future.result() for future in waiting]
            waiting = coming
        yield [future.result() for future in waiting]


def _read(file: _File, fitting: _Fitting) -> _Read:
    try:
        source, settings = EncodedFile(file.path), fitting.settings
        image = source.decode(source.read(), settings)
        fitted = [decoding.fit_frames(decoding.flatten(image, settings), settings, fitting.num_frames)]
        if fitting.mask is not None:
            fitted.append(decoding.fit_hole(image, settings))
        return file, [decoding.encode_png(each) for each in fitted]
    except UnreadableImage as error:
        return file, error


def _png(image_HWC: np.ndarray) -> bytes:
    return decoding.encode_png(image_HWC[:, :, 0] if image_HWC.shape[2] == 1 else image_HWC)
