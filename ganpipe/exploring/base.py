"""What an exploration is: what it tells, its options, for which GANs it makes sense, and the files that it makes."""

from __future__ import annotations

import argparse
import math
from abc import ABC, abstractmethod
from typing import ClassVar

from ..errors import GanpipeError
from ..packaging.served_model import MAX_SEED
from ..params import Params
from .explored import Explored
from .latents import Space, has_styles

MOST_SEEDS, MOST_STEPS = 64, 64


class Exploration(ABC):
    """Pictures of what a generator's latents do. A subclass is final and alone in a file that has its name; it reads
    and checks its options when it is made, before a generator is opened.

    Raises:
        GanpipeError: an option is out of range.
    """

    tells: ClassVar[str]
    """What its pictures show, in one sentence, for the report and the help text."""

    def __init__(self, options: argparse.Namespace, params: Params) -> None:
        self.params = params

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Its own options."""
        return None

    def require(self, explored: Explored) -> None:
        """Raise GanpipeError, before any work, where it makes no sense for this GAN.

        By default it needs latents, and a GAN that makes its images of nothing but them, of classes, codes and words.
        """
        gan = explored.gan
        if gan.output.kind != "image":
            raise GanpipeError(f"{explored.text} makes {gan.output.text}; only images are explored")
        if pictures := [name for name, spec in gan.conditions.items() if spec.is_picture]:
            raise GanpipeError(
                f"{explored.text} makes images of other images ({', '.join(pictures)}), not of latents: there is "
                "nothing to explore; `ganpipe translate` gives it your images"
            )
        if not gan.has_latents:
            raise GanpipeError(f"{explored.text} has no latents to explore")

    @abstractmethod
    def run(self, explored: Explored) -> dict[str, bytes]:
        """The contents of its files by name; equal input gives equal bytes on the same kind of device."""


def require_styles(explored: Explored, option: str = "") -> None:
    """Raise GanpipeError where a GAN is not style-based.

    Args:
        option: the option that needs styles; empty for the whole exploration.
    """
    if not has_styles(explored.gan):
        raise GanpipeError(
            f"{f'{option}: ' if option else ''}{explored.text} has no styles; only style-based GANs (StyleGAN) have"
        )


def add_space(parser: argparse.ArgumentParser) -> None:
    """The option --space."""
    parser.add_argument(
        "--space",
        choices=("z", "w"),
        default="z",
        help="z (default): what the GAN draws, on the sphere; w: the styles of a style-based GAN, on a straight line",
    )


def require_space(explored: Explored, space: Space) -> None:
    """Raise GanpipeError where a GAN does not have the space that --space names."""
    if space == "w":
        require_styles(explored, "--space w")


def add_seeds(parser: argparse.ArgumentParser, default: str, what: str, option: str = "--seeds") -> None:
    """An option that takes a list of seeds."""
    parser.add_argument(option, default=default, metavar="SEED,…", help=f"{what}; default: {default}")


def seeds_in(option: str, text: str, least: int = 1) -> list[int]:
    """Seeds from a list such as `0,1,2`.

    Args:
        least: how many there must be.

    Raises:
        GanpipeError: it is no such list.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 20 and int(part) <= MAX_SEED for part in parts):
        raise GanpipeError(f"{option}: got {text[:100]!r}; expected seeds from 0 to {MAX_SEED}, such as 0,1,2")
    if not least <= len(parts) <= MOST_SEEDS:
        raise GanpipeError(f"{option}: got {len(parts)} seeds; expected {least} to {MOST_SEEDS}")
    return [int(part) for part in parts]


def within(option: str, value: float, low: float, high: float) -> None:
    """Raise GanpipeError unless a number is from `low` to `high`."""
    if not (math.isfinite(value) and low <= value <= high):
        raise GanpipeError(f"{option}: got {value:g}; expected {low:g} to {high:g}")
