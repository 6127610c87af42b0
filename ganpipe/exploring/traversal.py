"""What each code or class changes while the latent stays (Chen 2016, arXiv 1606.03657, figure 2).

Legend: N images, K coordinates of a latent.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from ..errors import GanpipeError
from ..evaluation.figures.traversal import values_along
from ..evaluation.grids import png, ragged_grid
from ..params import Params
from ..section import nearest
from .base import MOST_STEPS, Exploration, add_seeds, seeds_in, within
from .explored import Explored


class Traversal(Exploration):
    """A row per code and seed; or per coordinate of the latent, as the paper shows it of a GAN without codes."""

    tells = "Each row changes one code, class or coordinate of the latent and nothing else"

    def __init__(self, options: argparse.Namespace, params: Params) -> None:
        super().__init__(options, params)
        self.seeds, self.num_steps, self.code = seeds_in("--seeds", options.seeds), options.steps, options.code
        self.num_coordinates = options.coordinates
        within("--steps", self.num_steps, 2, MOST_STEPS)
        within("--coordinates", self.num_coordinates, 0, MOST_STEPS)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--code", metavar="NAME", help="a code, or the class (label); default: all in turn")
        add_seeds(parser, "0,1,2", "a row each")
        parser.add_argument("--steps", type=int, default=10, help="values of a code that is a number; default: 10")
        parser.add_argument(
            "--coordinates", type=int, default=0, help="in place of codes: so many first coordinates of the latent"
        )

    def require(self, explored: Explored) -> None:
        super().require(explored)
        if self.num_coordinates:
            if explored.latents([self.seeds[0]]).vectors_NK.shape[1] < self.num_coordinates:
                raise GanpipeError(f"--coordinates: got {self.num_coordinates}, more than the latent has")
            return
        if not (codes := _codes(explored)):
            raise GanpipeError(f"{explored.text} takes no codes and no classes; --coordinates 3 traverses its latent")
        if self.code is not None and self.code not in codes:
            raise GanpipeError(f"--code: there is no code {self.code[:100]!r}; {nearest(self.code[:100], codes)}")

    def run(self, explored: Explored) -> dict[str, bytes]:
        if self.num_coordinates:
            of_latents = [self._coordinate(explored, k, s) for k in range(self.num_coordinates) for s in self.seeds]
            return {"traversal.png": png(ragged_grid(of_latents))}
        codes = _codes(explored) if self.code is None else [self.code]
        return {"traversal.png": png(ragged_grid([self._row(explored, c, s) for c in codes for s in self.seeds]))}

    def _row(self, explored: Explored, code: str, seed: int) -> np.ndarray:
        values_N = values_along(explored.gan.conditions[code], self.num_steps)
        rows = {**explored.condition(seed, len(values_N)), code: values_N}
        return explored.samples([seed] * len(values_N), rows)

    def _coordinate(self, explored: Explored, number: int, seed: int) -> np.ndarray:
        """Images along one coordinate, from -2 to 2 deviations or over the whole range of uniform numbers."""
        latents = explored.latents([seed])
        vectors_NK = latents.vectors_NK.repeat(self.num_steps, 1)
        limit = min(float(2 * latents.spread_K[number]), float(latents.bounds_K[number]))
        vectors_NK[:, number] = torch.linspace(-limit, limit, self.num_steps)
        return explored.images(latents.at(vectors_NK), explored.condition(seed, self.num_steps))


def _codes(explored: Explored) -> list[str]:
    return [name for name, spec in explored.gan.conditions.items() if spec.kind in ("label", "number")]
