"""A film of an interpolation through several seeds and back to the first.

Legend: N frames, C channels, H height, W width.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from PIL import Image

from ..errors import GanpipeError
from ..evaluation.grids import gif
from ..params import Params
from .base import Exploration, add_seeds, add_space, require_space, seeds_in, within
from .explored import Explored

_SHOWN_SIDE = 128
"""Smaller images are enlarged by a whole factor to about this side, pixel by pixel."""
_MOST_FRAMES = 1000


class Film(Exploration):
    """A GIF that begins again at its end; the condition (class, codes) is that of the first seed throughout."""

    tells = "A walk through latent space, from seed to seed and back to the first"

    def __init__(self, options: argparse.Namespace, params: Params) -> None:
        super().__init__(options, params)
        self.seeds, self.space = seeds_in("--seeds", options.seeds, 2), options.space
        within("--seconds", options.seconds, 0.1, 600)
        within("--fps", options.fps, 1, 50)  # a GIF counts in hundredths of a second, and players take 2 at the least
        self.milliseconds = round(100 / options.fps) * 10
        self.num_frames = round(options.seconds * options.fps)
        if not len(self.seeds) <= self.num_frames <= _MOST_FRAMES:
            raise GanpipeError(
                f"--seconds, --fps: got {self.num_frames} frames; expected {len(self.seeds)} (one per seed) to "
                f"{_MOST_FRAMES:,}"
            )

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        add_seeds(parser, "0,1,2,3", "the seeds that it passes, before it returns to the first")
        parser.add_argument("--seconds", type=float, default=6.0, help="how long it lasts; default: 6")
        parser.add_argument("--fps", type=int, default=10, help="frames per second; default: 10")
        add_space(parser)

    def require(self, explored: Explored) -> None:
        super().require(explored)
        require_space(explored, self.space)

    def run(self, explored: Explored) -> dict[str, bytes]:
        parts = []
        # The frames are shared out evenly: a way's last image is the next way's first.
        starts = np.linspace(0, self.num_frames, len(self.seeds) + 1).round().astype(int).tolist()
        ways = itertools.pairwise([*self.seeds, self.seeds[0]])
        for ends, (start, stop) in zip(ways, itertools.pairwise(starts), strict=True):
            parts.append(explored.between(ends, stop - start + 1, self.space, self.seeds[0])[:-1])
        return {"film.gif": _gif(np.concatenate(parts), self.milliseconds)}


def _gif(images_NCHW: np.ndarray, milliseconds: int) -> bytes:
    factor = max(1, round(_SHOWN_SIDE / max(images_NCHW.shape[2:])))
    enlarged = images_NCHW.repeat(factor, axis=2).repeat(factor, axis=3).transpose(0, 2, 3, 1)
    return gif([Image.fromarray(frame[:, :, 0] if frame.shape[2] == 1 else frame) for frame in enlarged], milliseconds)
