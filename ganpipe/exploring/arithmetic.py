"""Arithmetic with latents: mean latents of groups of samples, added and subtracted (Radford 2015, arXiv 1511.06434,
section 6.3.2 and figure 7).

Legend: N samples, K coordinates of a latent.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import GanpipeError
from ..evaluation.grids import blank, grid, png
from ..gans.draws import derive_seed
from ..params import Params
from .base import Exploration, add_space, require_space, seeds_in, within
from .choosing import class_here, seeds_of_classes
from .explored import Explored
from .latents import Latents

_CLASS = "class:"
_GAP = 24
_MOST_TERMS, _MOST_MEMBERS = 8, 32
_CENTRE, _NUM_FOR_SPREAD = 4, 256


@dataclass(frozen=True)
class Term:
    """A group of samples, added (+1) or subtracted (-1): by its seeds, or as `name` of a class."""

    sign: int
    seeds: tuple[int, ...] = ()
    name: str = ""


def terms_in(expression: str) -> list[Term]:
    """The terms of an expression such as `0,4,7 - class:three + 5,6`; there are spaces around its signs.

    Raises:
        GanpipeError: it is no such expression.
    """
    parts = re.split(r"\s+([+-])\s+", expression.strip())
    signs = [1, *(1 if sign == "+" else -1 for sign in parts[1::2])]
    if len(signs) > _MOST_TERMS:
        raise GanpipeError(f"--expression: got {len(signs)} terms; expected {_MOST_TERMS} at the most")
    terms = []
    for sign, text in zip(signs, parts[0::2], strict=True):
        if text.startswith(_CLASS):
            terms.append(Term(sign, name=text.removeprefix(_CLASS).strip()))
        else:
            terms.append(Term(sign, tuple(seeds_in("--expression", text))))
    return terms


def sum_of_means(groups: list[tuple[int, Tensor]]) -> Tensor:
    """The signed sum of the groups' mean vectors, (K,).

    Args:
        groups: (sign, vectors (N, K)) of each.
    """
    return torch.stack([sign * vectors_NK.mean(0) for sign, vectors_NK in groups]).sum(0)


class Arithmetic(Exploration):
    """Each term's members and their mean; then the result, among eight that lie near it."""

    tells = (
        "A row for each term: its members, then the image of their mean latent; right: the sum in the centre, with a "
        "little noise around it"
    )

    def __init__(self, options: argparse.Namespace, params: Params) -> None:
        super().__init__(options, params)
        self.terms, self.noise, self.num_members = terms_in(options.expression), options.noise, options.members
        self.space = options.space
        within("--noise", self.noise, 0, 100)
        within("--members", self.num_members, 1, _MOST_MEMBERS)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--expression",
            required=True,
            help="groups of seeds and signs, as in '0,4,7 - 1,2,3 + 5,6'; class:NAME or class:NUMBER is the group of "
            "the first samples that a classifier of this checkout's images assigns to that class",
        )
        parser.add_argument("--members", type=int, default=3, help="samples in the group of a class; default: 3")
        parser.add_argument(
            "--noise", type=float, default=0.25, help="of the eight results around the centre; default: 0.25"
        )
        add_space(parser)

    def require(self, explored: Explored) -> None:
        super().require(explored)
        require_space(explored, self.space)
        for term in self.terms:
            if not term.seeds:
                class_here(explored, term.name)

    def run(self, explored: Explored) -> dict[str, bytes]:
        groups = self._groups(explored)
        latents = [explored.latents(seeds, self.space) for _, seeds in groups]
        most, rows = max(len(seeds) for _, seeds in groups), []
        for (_, seeds), group in zip(groups, latents, strict=True):
            members_NCHW = explored.samples(seeds)
            mean = group.at(group.vectors_NK.mean(0, keepdim=True))
            mean_NCHW = explored.images(mean, explored.conditions(seeds[:1]))
            rows += [members_NCHW, blank(most - len(seeds), members_NCHW), mean_NCHW]
        terms = grid(np.concatenate(rows), most + 1, wide_gap_after=most)
        result_K = sum_of_means([(sign, group.vectors_NK) for (sign, _), group in zip(groups, latents, strict=True)])
        around = latents[0].at(result_K + self._noise(explored, latents[0]))
        results = grid(explored.images(around, explored.condition(groups[0][1][0], 9)), 3)
        return {"arithmetic.png": png(_beside(terms, results))}

    def _groups(self, explored: Explored) -> list[tuple[int, list[int]]]:
        """(sign, seeds) of each term."""
        numbers = {term.name: class_here(explored, term.name) for term in self.terms if not term.seeds}
        wanted = dict.fromkeys(numbers.values(), self.num_members)
        found = seeds_of_classes(explored, wanted, self.params) if wanted else {}
        return [(term.sign, list(term.seeds) or found[numbers[term.name]]) for term in self.terms]

    def _noise(self, explored: Explored, latents: Latents) -> Tensor:
        """Uniform noise around a centre without any, (9, K), in deviations of each coordinate."""
        spread_K = latents.spread_K
        if self.space == "w":
            spread_K = explored.styles(list(range(_NUM_FOR_SPREAD))).flatten(1).std(0)
        noise_NK = torch.rand(9, len(spread_K), generator=torch.Generator().manual_seed(derive_seed("arithmetic")))
        noise_NK = (2 * noise_NK - 1) * self.noise * spread_K
        noise_NK[_CENTRE] = 0
        return noise_NK


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    canvas = Image.new(left.mode, (left.width + _GAP + right.width, max(left.height, right.height)), "white")
    canvas.paste(left, (0, 0))
    canvas.paste(right, (left.width + _GAP, 0))
    return canvas
