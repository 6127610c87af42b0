"""What an exploration makes of small packaged GANs, and how its pictures are read."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ganpipe import exploring
from ganpipe.exploring.explored import Explored
from ganpipe.params import Params
from ganpipe.registry.open_model import load

CODES = {"num_latents": 8, "num_categories": 3, "generator_width": 4, "dense_width": 16}
"""Settings of a small InfoGAN."""


def explored(package: Path, **more: Any) -> Explored:
    """The generator of a package."""
    generator = load(package.name, package)
    return Explored(package.parent.name, generator.description["gan"], generator.gan, generator.progress, **more)


def made(kind: str, subject: Explored, *arguments: str, params: Params | None = None) -> dict[str, bytes]:
    """The files of an exploration."""
    exploration_class = exploring.load(kind)
    parser = argparse.ArgumentParser()
    parser.add_argument("--truncation", type=float, default=subject.truncation)
    exploration_class.add_options(parser)
    exploration = exploration_class(parser.parse_args(arguments), params or Params())
    exploration.require(subject)
    return exploration.run(subject)


def opening(others: dict[str, Explored]) -> Callable[[str], AbstractContextManager[Explored]]:
    """For `Explored.open`: others by their names."""

    @contextmanager
    def open_other(name: str) -> Iterator[Explored]:
        yield others[name]

    return open_other


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def cell(content: bytes, row: int, column: int, wide_gaps: int = 0) -> np.ndarray:
    """An image of 16 x 16 pixels in a grid, where each pixel is 4 x 4: integers, (H, W).

    Args:
        wide_gaps: how many are at its left.
    """
    top, left = 2 + row * 66, 2 + column * 66 + 8 * wide_gaps
    return pixels(content)[top : top + 64 : 4, left : left + 64 : 4].astype(int)


def shape(content: bytes) -> tuple[int, int]:
    """Rows and columns of a grid of such images, without wide gaps."""
    height, width = pixels(content).shape
    return (height - 2) // 66, (width - 2) // 66
