"""Style mixing: the coarse layers take the styles of one latent, the fine layers those of another (Karras 2018, arXiv
1812.04948, section 3.1 and figure 3).

Legend: N images, L layers that take a style, D numbers of a style.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from ..errors import GanpipeError
from ..evaluation.grids import blank, grid, png
from ..params import Params
from .base import Exploration, add_seeds, require_styles, seeds_in
from .explored import Explored


class Styles(Exploration):
    """The left column and the top row are the sources."""

    tells = (
        "Coarse styles come from the image at the left of the row, fine styles from the image at the top of the column"
    )

    def __init__(self, options: argparse.Namespace, params: Params) -> None:
        super().__init__(options, params)
        self.coarse, self.fine = seeds_in("--coarse", options.coarse), seeds_in("--fine", options.fine)
        self.num_coarse = options.at

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        add_seeds(parser, "0,1,2,3", "rows: where coarse styles (pose, shape) come from", "--coarse")
        add_seeds(parser, "4,5,6,7,8", "columns: where fine styles (colour, texture) come from", "--fine")
        parser.add_argument("--at", type=int, help="how many layers are coarse; default: half of them")

    def require(self, explored: Explored) -> None:
        super().require(explored)
        require_styles(explored)
        num_layers = explored.styles([0]).shape[1]
        if self.num_coarse is not None and not 1 <= self.num_coarse < num_layers:
            raise GanpipeError(f"--at: got {self.num_coarse}; expected 1 to {num_layers - 1} of {num_layers} layers")

    def run(self, explored: Explored) -> dict[str, bytes]:
        fine_NLD = explored.styles(self.fine)
        num_coarse = self.num_coarse or fine_NLD.shape[1] // 2
        tops_NCHW = explored.samples(self.fine)
        rows = [blank(1, tops_NCHW), tops_NCHW]
        for seed in self.coarse:
            source = explored.latents([seed], "w")
            assert source.w_NLD is not None
            coarse_NLD = source.w_NLD[:, :num_coarse].expand(len(fine_NLD), -1, -1)
            mixed_NLD = torch.cat([coarse_NLD, fine_NLD[:, num_coarse:]], dim=1)
            rows.append(explored.samples([seed]))
            rows.append(explored.images(source.at(mixed_NLD.flatten(1)), explored.condition(seed, len(fine_NLD))))
        return {"styles.png": png(grid(np.concatenate(rows), 1 + len(self.fine)))}
