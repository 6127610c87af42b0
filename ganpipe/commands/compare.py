"""compare: two generators side by side: samples of equal seeds, numbers with their protocol, what differs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .. import environment
from ..errors import GanpipeError
from ..evaluation import grids, sample_grids
from ..evaluation.sampling import sample_seeds
from ..packaging.served_model import to_uint8
from ..params import Params, load_params
from ..registry.comparison import as_html, as_text, compare
from ..registry.open_model import OpenedGenerator, open_generator
from ..tracking.runs import Tracker, get_run_or_none
from . import output

if TYPE_CHECKING:
    from collections.abc import Mapping

GAP = 24
"""Pixels between the two grids."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ganpipe compare", description=__doc__)
    for name in ("first", "second"):
        parser.add_argument(name, help="a model URI, the folder of a package, or a version or alias")
    parser.add_argument("--num", type=int, default=64, help="samples of each; default: 64")
    parser.add_argument("--seed", type=int, default=0, help="of the samples, as evaluate.seed")
    out_help = f"page.html, or a folder for comparison.html and samples.png; {output.RULE}"
    parser.add_argument("--out", type=Path, help=out_help)
    options = parser.parse_args(argv)
    if not 1 <= options.num <= 1024:
        raise GanpipeError(f"--num: got {options.num}; expected 1 to 1024")
    if options.seed < 0:
        raise GanpipeError(f"--seed: got {options.seed}; expected 0 or more")
    folder = options.out is not None and output.is_folder(options.out, ".html")
    settings = load_params().register_
    tracker = Tracker.at(environment.home(), settings.experiment)
    with (
        open_generator(options.first, tracker, settings.model_name) as first,
        open_generator(options.second, tracker, settings.model_name) as second,
    ):
        known = _settings_of(tracker, first), _settings_of(tracker, second)
        comparison = compare(
            (first.name, second.name),
            (first.generator.description, second.generator.description),
            (known[0], known[1]) if known[0] and known[1] else None,
        )
        print(as_text(comparison))
        if options.out is not None:
            picture = grids.png(side_by_side(first, second, options.num, options.seed))
            page = as_html(comparison, picture)
            for path in _write(options.out, folder, page, picture):
                print(path)
    return 0


def side_by_side(first: OpenedGenerator, second: OpenedGenerator, num: int, seed: int) -> Image.Image:
    """The grids of two generators beside each other. The same position has the same seed in both, and the same label if
    both GANs have the same number of classes."""
    generators = first.generator, second.generator
    alike = all(item.label is not None for item in generators) and len({item.num_classes for item in generators}) == 1
    sides = []
    for generator in generators:
        given = sample_grids.classes_in_turn(generator.gan, num) if alike else None
        columns = sample_grids.num_columns(generator.gan) if alike else None
        chosen = {name: values.tolist() for name, values in (given or {}).items()}
        images_NHWC = to_uint8(generator.images(sample_seeds(seed, num), chosen))
        sides.append(grids.grid(images_NHWC.transpose(0, 3, 1, 2), columns).convert("RGB"))
    left, right = sides
    size = (left.width + GAP + right.width, max(left.height, right.height))
    canvas = Image.fromarray(np.full((size[1], size[0], 3), 255, np.uint8))
    canvas.paste(left, (0, 0))
    canvas.paste(right, (left.width + GAP, 0))
    return canvas


def _settings_of(tracker: Tracker, model: OpenedGenerator) -> Mapping[str, str]:
    """The settings of the run that trained a version; empty if the package is not from the registry or the run is
    gone."""
    version = model.version
    if version is None or not version.run_id:
        return {}
    run = get_run_or_none(tracker.client(), tracker, version.run_id)
    if run is None:
        return {}
    commit = version.tags.get("ganpipe.git.commit", "")
    settings = {key: value for key, value in run.data.params.items() if key.split(".")[0] in Params.model_fields}
    return {**settings, **({"commit": commit} if commit else {})}


def _write(out: Path, folder: bool, page: str, picture: bytes) -> list[Path]:
    files = {out: page.encode()}
    if folder:
        files = {out / "comparison.html": page.encode(), out / "samples.png": picture}
    for path, content in files.items():
        output.write(path, content)
    return list(files)
