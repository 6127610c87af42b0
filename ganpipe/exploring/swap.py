"""Layer swapping between two versions of one family (Toonify; Pinkney & Adler 2020, arXiv 2010.05334): the first layers
of one generator and the last of another that was fine-tuned from it, or from which it was."""

from __future__ import annotations

import argparse
import copy
import dataclasses

import numpy as np
from torch import Tensor

from ..errors import GanpipeError
from ..evaluation.grids import grid, png
from ..gans.base import Gan
from ..params import Params
from .base import Exploration, add_seeds, seeds_in, within
from .explored import Explored


class Swap(Exploration):
    """Samples of equal seeds in three rows: the first generator, the second, and both in one."""

    tells = "The same seeds in three generators: one, the other, and the first layers of one with the last of the other"

    def __init__(self, options: argparse.Namespace, params: Params) -> None:
        super().__init__(options, params)
        self.seeds, self.other, self.share = seeds_in("--seeds", options.seeds), options.other, options.at
        within("--at", self.share, 0, 1)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--with",
            dest="other",
            required=True,
            metavar="MODEL",
            help="the other generator: one of the two was trained from the other (train.start_from)",
        )
        parser.add_argument(
            "--at",
            type=float,
            default=0.5,
            help="share of the layers, from the first, that are of --model; default: 0.5",
        )
        add_seeds(parser, "0,1,2,3,4,5,6,7", "a column each")

    def run(self, explored: Explored) -> dict[str, bytes]:
        assert explored.open is not None
        with explored.open(self.other) as other:
            require_same_family(explored, other)
            mixed = copy.deepcopy(explored.gan)
            weights = mixed_weights(weights_of(explored.gan), weights_of(other.gan), self.share)
            for name, value in weights_of(mixed).items():
                value.copy_(weights[name])
            given = explored.conditions(self.seeds)
            rows = [
                explored.samples(self.seeds, given),
                other.samples(self.seeds, given),
                dataclasses.replace(explored, gan=mixed).samples(self.seeds, given),
            ]
        return {"swap.png": png(grid(np.concatenate(rows), len(self.seeds)))}


def require_same_family(first: Explored, second: Explored) -> None:
    """Raise GanpipeError unless both are the same GAN with weights of the same names and shapes. Settings that leave
    the networks as they are (learning rates, weights of losses) may differ, because fine-tuning changes them."""
    if first.gan_name != second.gan_name:
        raise GanpipeError(f"--with: {second.text} is of another family than {first.text}")
    shapes = [{name: tuple(value.shape) for name, value in weights_of(item.gan).items()} for item in (first, second)]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        found = [item.get(name) for item in shapes]
        if found[0] != found[1]:
            raise GanpipeError(
                f"--with: {second.name} has other networks than {first.name}: {name} has the shape "
                f"{found[1] or 'of none'}, not {found[0] or 'of none'}"
            )


def weights_of(gan: Gan) -> dict[str, Tensor]:
    """What a packaged generator holds: parameters and buffers, by name, in the order of the networks' layers."""
    return {name: value for name, value in gan.state_dict().items() if not value.is_meta}


def mixed_weights(first: dict[str, Tensor], second: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The first `share` of the layers of one, the others of the other. A layer's weight, bias and statistics stay
    together."""
    layers = list(dict.fromkeys(map(layer_of, first)))
    from_first = set(layers[: round(share * len(layers))])
    return {name: (first if layer_of(name) in from_first else second)[name] for name in first}


def layer_of(name: str) -> str:
    """The layer that a weight belongs to, also where it is parametrised: `a.b.parametrizations.weight.original`."""
    layer, _, rest = name.partition(".parametrizations.")
    return layer if rest else name.rpartition(".")[0]
