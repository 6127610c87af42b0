"""The truncation trick: less varied images for more quality (Brock 2018, arXiv 1809.11096, section 3.1; in w, Karras
2018, arXiv 1812.04948, appendix B)."""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np

from ..errors import GanpipeError
from ..evaluation.grids import grid, png
from ..params import Params
from .base import MOST_STEPS, Exploration, add_seeds, seeds_in, within
from .explored import Explored


class Truncation(Exploration):
    """A row per seed, a column per truncation."""

    tells = "Each row is one seed: left near the typical image, right as varied as it was trained"

    def __init__(self, options: argparse.Namespace, params: Params) -> None:
        super().__init__(options, params)
        self.seeds, self.lowest, self.num_steps = seeds_in("--seeds", options.seeds), options.lowest, options.steps
        within("--steps", self.num_steps, 2, MOST_STEPS)
        if not 0 < self.lowest < options.truncation:
            raise GanpipeError(f"--lowest: got {self.lowest:g}; expected a number above 0 and below --truncation")

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        add_seeds(parser, "0,1,2,3,4,5,6,7", "a row each")
        parser.add_argument("--lowest", type=float, default=0.1, help="the first column's truncation; default: 0.1")
        parser.add_argument("--steps", type=int, default=10, help="columns, up to --truncation; default: 10")

    def run(self, explored: Explored) -> dict[str, bytes]:
        values = np.linspace(self.lowest, explored.truncation, self.num_steps).tolist()
        columns = [dataclasses.replace(explored, truncation=value).samples(self.seeds) for value in values]
        rows = np.stack(columns, axis=1)
        return {"truncation.png": png(grid(rows.reshape(-1, *rows.shape[2:]), self.num_steps))}
