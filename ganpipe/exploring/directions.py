"""Principal directions: GANSpace (Härkönen 2020, arXiv 2004.02546).

Legend: N, P samples, K coordinates of a latent, F numbers of an activation, Q components, L layers, D style numbers.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import GanpipeError
from ..evaluation.grids import grid, png
from ..evaluation.sampling import sampling
from ..params import Params
from .base import MOST_STEPS, Exploration, add_seeds, require_styles, seeds_in, within
from .explored import BATCH, Explored
from .latents import Latents, has_styles

_MOST_SAMPLES = 100_000


class Directions(Exploration):
    """With styles, principal components of w (section 2.1); otherwise those of the first layer's activations, and for
    each the direction in z that moves along it (section 2.2)."""

    tells = "A row for each principal direction, strongest first; each group of columns moves one seed along it"

    def __init__(self, options: argparse.Namespace, params: Params) -> None:
        super().__init__(options, params)
        self.seeds, self.num_samples = seeds_in("--seeds", options.seeds), options.num
        self.num_components, self.num_steps, self.reach = options.components, options.steps, options.reach
        self.layers = None if options.layers is None else _layers_in(options.layers)
        within("--steps", self.num_steps, 2, MOST_STEPS)
        within("--components", self.num_components, 1, 64)
        within("--num", self.num_samples, self.num_components + 1, _MOST_SAMPLES)
        within("--reach", self.reach, 0.01, 100)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        add_seeds(parser, "0,1,2", "a group of columns each")
        parser.add_argument("--components", type=int, default=6, help="rows; default: 6")
        parser.add_argument("--steps", type=int, default=5, help="columns per seed; default: 5")
        parser.add_argument(
            "--reach", type=float, default=2.0, help="how far to both sides, in standard deviations; default: 2"
        )
        parser.add_argument("--num", type=int, default=1000, help="samples that they are found in; default: 1000")
        parser.add_argument(
            "--layers",
            metavar="FIRST-LAST",
            help="for a style-based GAN: move the styles of these layers only, such as 0-1 (coarse) or 4-7 (fine)",
        )

    def require(self, explored: Explored) -> None:
        super().require(explored)
        if self.layers is not None:
            require_styles(explored, "--layers")
            if self.layers[1] >= (num_layers := explored.styles([self.seeds[0]]).shape[1]):
                raise GanpipeError(
                    f"--layers: got {self.layers[0]}-{self.layers[1]}; {explored.text} has layers 0 to {num_layers - 1}"
                )

    def run(self, explored: Explored) -> dict[str, bytes]:
        space = explored.best_space
        directions_QK, shares_Q = directions_of(explored, self.num_samples, self.num_components)
        if self.layers is not None:
            directions_QK = in_layers(directions_QK, explored.styles([self.seeds[0]]).shape[1], *self.layers)
        steps_P1 = torch.linspace(-self.reach, self.reach, self.num_steps)[:, None]
        starts = [explored.latents([seed], space) for seed in self.seeds]
        rows = []
        for direction_K in directions_QK:
            for seed, start in zip(self.seeds, starts, strict=True):
                moved = start.at(start.vectors_NK + steps_P1 * direction_K)
                rows.append(explored.images(moved, explored.condition(seed, self.num_steps)))
        columns = self.num_steps * len(self.seeds)
        lines = [f"{number},{share:.4g}\n" for number, share in enumerate(shares_Q.tolist(), 1)]
        return {
            "directions.png": png(grid(np.concatenate(rows), columns, wide_gap_every=self.num_steps)),
            "directions.csv": ("component,share_of_variance\n" + "".join(lines)).encode(),
        }


def _layers_in(text: str) -> tuple[int, int]:
    """First and last layer from a text such as `0-3` or `2`."""
    parts = text.split("-")
    if len(parts) <= 2 and all(part.isascii() and part.isdecimal() and len(part) < 4 for part in parts):
        first, last = int(parts[0]), int(parts[-1])
        if first <= last:
            return first, last
    raise GanpipeError(f"--layers: got {text[:100]!r}; expected a first and a last layer, such as 0-3")


def in_layers(directions_QK: Tensor, num_layers: int, first: int, last: int) -> Tensor:
    """Directions in w that move the styles of some layers alone (section 2.3).

    Args:
        directions_QK: with K = L D, a style's numbers for each of `num_layers` layers.
        first, last: of the layers that move, both included.
    """
    is_moved_L = torch.zeros(num_layers)
    is_moved_L[first : last + 1] = 1
    return directions_QK * is_moved_L.repeat_interleave(directions_QK.shape[1] // num_layers)


def directions_of(explored: Explored, num_samples: int, num_components: int) -> tuple[Tensor, Tensor]:
    """At most so many directions, (Q, K), each as long as one standard deviation, in `explored.best_space`; and their
    shares of the variance, (Q,). The condition is that of seed 0 in all samples."""
    seeds, given = list(range(num_samples)), explored.condition(0, num_samples)
    if not has_styles(explored.gan):
        latents = explored.latents(seeds, "z", given)
        return principal_directions(_activations(explored, latents, given), latents.vectors_NK, num_components)
    w_NLD = explored.styles(seeds)
    w_ND = w_NLD[:, 0]
    directions_QD, shares_Q = principal_directions(w_ND, w_ND, num_components)
    return directions_QD.repeat(1, w_NLD.shape[1]), shares_Q  # the same for every layer


def principal_directions(activations_NF: Tensor, latents_NK: Tensor, num_components: int) -> tuple[Tensor, Tensor]:
    """See `directions_of`. The scores of the principal components are regressed on by the latents (least squares); as
    scores of different components are uncorrelated, each can be regressed on alone.

    Where the activations are the latents, the directions are the principal components themselves.
    """
    centred_NF = (activations_NF - activations_NF.mean(0)).double()
    latents_NK = (latents_NK - latents_NK.mean(0)).double()
    left_NQ, values_Q, _ = torch.linalg.svd(centred_NF, full_matrices=False)
    num_found = int((values_Q > 1e-6 * values_Q[0].clamp(min=1e-12)).sum())
    left_NQ = left_NQ[:, : min(num_components, num_found)]
    directions_QK = left_NQ.T @ latents_NK / (len(latents_NK) - 1) ** 0.5
    # A component has no sign of its own: its largest coordinate points up.
    largest_Q1 = directions_QK.gather(1, directions_QK.abs().argmax(1, keepdim=True))
    shares_Q = values_Q.square() / values_Q.square().sum()
    return (directions_QK * largest_Q1.sign()).float(), shares_Q[: len(directions_QK)]


def _activations(explored: Explored, latents: Latents, given: dict[str, Tensor]) -> Tensor:
    """What the generator's first layer with weights makes of these latents, (N, F).

    The first whose output depends on the latent, because a layer for the class may come before.
    """
    layers = [module for module in explored.gan.modules() if _has_weights(module)]
    seen: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, arguments: object, output: object) -> None:
        if isinstance(output, Tensor):
            seen.append((module, output.detach().float().cpu().flatten(1)))

    handles = [layer.register_forward_hook(note) for layer in layers]
    parts, chosen = [], None
    try:
        for start in range(0, len(latents), BATCH):
            rows = slice(start, start + BATCH)
            seen.clear()
            with sampling(explored.gan, 0), torch.no_grad():
                explored.render(latents[rows], {name: values[rows] for name, values in given.items()})
            if chosen is None:
                num_rows = len(latents[rows])
                varied = [item for item, found in seen if len(found) == num_rows and (found.std(0) > 0).any()]
                if not varied:
                    raise GanpipeError(f"{explored.text} has no layer whose output depends on the latent")
                chosen = varied[0]
            parts.append(next(found for item, found in seen if item is chosen))
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(parts)


def _has_weights(module: nn.Module) -> bool:
    """Whether it is a layer with weights of its own, also where they are parametrised (spectral norm)."""
    if isinstance(module, parametrize.ParametrizationList):  # makes weights, no activations
        return False
    own = [*module.parameters(recurse=False)]
    if parametrize.is_parametrized(module):
        own += module.parametrizations.parameters()  # type: ignore[union-attr]
    return any(weight.dim() > 1 and not weight.is_meta for weight in own)
