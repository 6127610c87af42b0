"""The generator that is explored: latents of its seeds, images of latents, and the ways between.

Legend: N images, C channels, H height, W width, L layers that take a style, D numbers of a style, K coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import GanpipeError
from ..evaluation.sampling import batch_of, conditions_of, interpolate, quantise, sample_images, sampling
from ..gans.base import Gan, Progress
from ..gans.draws import SeededDraws
from .latents import GivenDraws, Latents, RecordedDraws, Space, has_styles

BATCH = 64
"""Images in one call of the generator, as in `sample_images`."""


@dataclass(frozen=True)
class Explored:
    """A generator, and what all its images have in common.

    Attributes:
        name: for people: `models:/<name>/<version>`, or a folder.
        gan_name: of its file in gans/.
        given: condition -> the row that all images are given; other conditions are drawn from the seeds.
        truncation: in (0, 1].
        open: opens another generator by its address.
    """

    name: str
    gan_name: str
    gan: Gan
    progress: Progress
    given: Mapping[str, Any] = field(default_factory=dict)
    truncation: float = 1.0
    open: Callable[[str], AbstractContextManager[Explored]] | None = None

    @property
    def text(self) -> str:
        """For messages."""
        return f"the GAN {self.gan_name!r} of {self.name}"

    @property
    def best_space(self) -> Space:
        """w where there are styles, because directions there are straighter; else z."""
        return "w" if has_styles(self.gan) else "z"

    def conditions(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """What these samples are given, a row each."""
        given = {name: np.repeat(np.asarray(row)[None], len(seeds), axis=0) for name, row in self.given.items()}
        return conditions_of(self.gan, seeds, given)

    def condition(self, seed: int, num_images: int) -> dict[str, Tensor]:
        """What the sample of one seed is given, for several images."""
        return {name: row.expand(num_images, *row.shape[1:]) for name, row in self.conditions([seed]).items()}

    def samples(self, seeds: Sequence[int], given: Mapping[str, Tensor] | None = None) -> np.ndarray:
        """The images of seeds, uint8, (N, C, H, W)."""
        rows = self.conditions(seeds) if given is None else given
        return sample_images(self.gan, self.progress, seeds, rows, self.truncation, BATCH)

    def latents(self, seeds: Sequence[int], space: Space = "z", given: Mapping[str, Tensor] | None = None) -> Latents:
        """The latents of the samples of these seeds.

        Raises:
            GanpipeError: the GAN draws nothing.
        """
        gan, rows = self.gan, self.conditions(seeds) if given is None else given
        parts = []
        for start in range(0, len(seeds), BATCH):
            chosen = slice(start, start + BATCH)
            draws = RecordedDraws(SeededDraws(seeds[chosen]))
            chosen_rows = {name: values[chosen] for name, values in rows.items()}
            batch = batch_of(gan, len(seeds[chosen]), draws, chosen_rows, self.truncation)
            with sampling(gan, seeds[start]), torch.no_grad():
                if space == "w" and has_styles(gan):
                    w_NLD = gan.styles(batch)
                    num_before = len(draws.drawn)
                    gan.synthesise(w_NLD, batch, self.progress)
                    parts.append(Latents(tuple(draws.drawn[num_before:]), w_NLD.cpu()))
                else:
                    gan.sample(batch, self.progress)
                    parts.append(Latents(tuple(draws.drawn)))
        if parts[0].w_NLD is None and all(call.kind == "integers" for call in parts[0].drawn):
            raise GanpipeError(f"{self.text} draws no numbers, so it has no latents")
        return Latents.joined(parts)

    def styles(self, seeds: Sequence[int]) -> Tensor:
        """The styles of seeds, (N, L, D), without an image of them; for a GAN with styles."""
        gan, rows = self.gan, self.conditions(seeds)
        assert has_styles(gan)
        batch = batch_of(self.gan, len(seeds), SeededDraws(seeds), rows, self.truncation)
        with sampling(self.gan, seeds[0]), torch.no_grad():
            return gan.styles(batch).cpu()

    def render(self, latents: Latents, given: Mapping[str, Tensor]) -> Tensor:
        """The images of latents, in [-1, 1], (N, C, H, W), where the networks are; differentiable.

        Args:
            given: what they are given, a row each.
        """
        gan = self.gan
        batch = batch_of(gan, len(latents), GivenDraws(latents.drawn), given, self.truncation)
        with sampling(gan, 0):
            if latents.w_NLD is None:
                return gan.sample(batch, self.progress)
            assert has_styles(gan)
            return gan.synthesise(batch.to_device(latents.w_NLD), batch, self.progress)

    def images(self, latents: Latents, given: Mapping[str, Tensor]) -> np.ndarray:
        """As `render`, uint8."""
        parts = []
        for start in range(0, len(latents), BATCH):
            rows = slice(start, start + BATCH)
            with torch.no_grad():
                found = self.render(latents[rows], {name: values[rows] for name, values in given.items()})
            parts.append(quantise(found))
        return np.concatenate(parts)

    def between(self, ends: tuple[int, int], num_steps: int, space: Space, held: int) -> np.ndarray:
        """Images on the way from one seed to another under one condition, uint8, (num_steps, C, H, W).

        In z on the sphere, see `draws.InterpolatedDraws`; in w on a straight line.

        Args:
            held: the seed whose condition all images have; in w, also its noise.
        """
        if space == "z":
            return interpolate(self.gan, self.progress, ends, num_steps, self.conditions([held]), self.truncation)
        latents = self.latents([held, *ends], "w", self.condition(held, 3))
        _, first_K, second_K = latents.vectors_NK
        fractions_N1 = torch.linspace(0, 1, num_steps)[:, None]
        way = latents.at(torch.lerp(first_K, second_K, fractions_N1))
        return self.images(way, self.condition(held, num_steps))
