"""Interpolation between latents: on the sphere in z (White 2016, arXiv 1609.04468), on a straight line in w (Karras
2018, arXiv 1812.04948, section 4.1)."""

from __future__ import annotations

import argparse
import itertools

import numpy as np

from ..evaluation.grids import grid, png
from ..params import Params
from .base import MOST_STEPS, Exploration, add_seeds, add_space, require_space, seeds_in, within
from .explored import Explored


class Interpolation(Exploration):
    """A row for each pair of successive seeds, whose samples are the row's ends."""

    tells = "Each row goes from the latent of one seed to that of the next in equal steps"

    def __init__(self, options: argparse.Namespace, params: Params) -> None:
        super().__init__(options, params)
        self.seeds, self.num_steps, self.space = seeds_in("--seeds", options.seeds, 2), options.steps, options.space
        within("--steps", self.num_steps, 2, MOST_STEPS)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        add_seeds(parser, "0,1,2,3,4,5,6,7,8", "each row goes from one seed to the next")
        parser.add_argument("--steps", type=int, default=10, help="images in a row, its ends included; default: 10")
        add_space(parser)

    def require(self, explored: Explored) -> None:
        super().require(explored)
        require_space(explored, self.space)

    def run(self, explored: Explored) -> dict[str, bytes]:
        rows = [explored.between(ends, self.num_steps, self.space, ends[0]) for ends in itertools.pairwise(self.seeds)]
        return {"interpolation.png": png(grid(np.concatenate(rows), self.num_steps))}
