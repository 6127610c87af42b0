"""The latents of any GAN, as what it draws: noted while it samples, changed as vectors, given back to it.

A GAN asks its batch for random numbers and for nothing else, so this works for every GAN, also for one whose code came
from a package.

Legend: N, M samples, K coordinates of a latent, L layers that take a style, D numbers of a style.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeGuard

import torch
from torch import Tensor

from ..gans.base import Batch, Progress
from ..gans.draws import Draws

Space = Literal["z", "w"]
"""z: what the GAN draws. w: the styles that a style-based GAN makes of it, one per layer."""
_CENTRES = {"normal": 0.0, "uniform": 0.5}
_SPREADS = {"normal": 1.0, "uniform": 0.5}
"""The deviation of normal numbers; half the range of uniform ones, which a GAN stretches to [-1, 1]."""


class StyleBased(Protocol):
    """What a style-based GAN has beside what every GAN has: `sample` is one of them after the other."""

    def styles(self, batch: Batch) -> Tensor:
        """Styles of fresh latents, (N, L, D), truncated as the batch says."""

    def synthesise(self, w_NLD: Tensor, batch: Batch, progress: Progress) -> Tensor:
        """Images from a style per layer; the batch is asked for noise."""


def has_styles(gan: Any) -> TypeGuard[StyleBased]:
    """Whether a GAN is style-based. Known by its methods, because a packaged GAN has a class of its own code."""
    return all(callable(getattr(gan, name, None)) for name in ("styles", "synthesise"))


@dataclass(frozen=True)
class Drawn:
    """What one call of a GAN's draws returned: `rows` (N, ...), and which kind of numbers they are."""

    kind: Literal["normal", "uniform", "integers"]
    rows: Tensor


class RecordedDraws(Draws):
    """Other draws, and a note of everything that they gave."""

    def __init__(self, inner: Draws) -> None:
        self._inner = inner
        self.drawn: list[Drawn] = []

    def normal(self, *shape: int) -> Tensor:
        return self._note(Drawn("normal", self._inner.normal(*shape)))

    def uniform(self, *shape: int) -> Tensor:
        return self._note(Drawn("uniform", self._inner.uniform(*shape)))

    def integers(self, high: int) -> Tensor:
        return self._note(Drawn("integers", self._inner.integers(high)))

    def _note(self, drawn: Drawn) -> Tensor:
        self.drawn.append(drawn)
        return drawn.rows


class GivenDraws(Draws):
    """Gives back what was noted, in the same order."""

    def __init__(self, drawn: Sequence[Drawn]) -> None:
        self._left = iter(drawn)

    def normal(self, *shape: int) -> Tensor:
        return next(self._left).rows

    def uniform(self, *shape: int) -> Tensor:
        return next(self._left).rows

    def integers(self, high: int) -> Tensor:
        return next(self._left).rows


@dataclass(frozen=True)
class Latents:
    """The latents of N samples: a vector of K coordinates each, and what cannot be added or interpolated.

    Attributes:
        drawn: what the GAN draws, in order; in w, only what it draws beside the styles (noise maps).
        w_NLD: the styles; None in z.
    """

    drawn: tuple[Drawn, ...]
    w_NLD: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[Latents]) -> Latents:
        """The samples of several in a row."""
        drawn = [
            Drawn(calls[0].kind, torch.cat([call.rows for call in calls]))
            for calls in zip(*(part.drawn for part in parts), strict=True)
        ]
        styles = [part.w_NLD for part in parts if part.w_NLD is not None]
        return cls(tuple(drawn), torch.cat(styles) if styles else None)

    def __len__(self) -> int:
        return len(self.drawn[0].rows if self.w_NLD is None else self.w_NLD)

    def __getitem__(self, rows: slice) -> Latents:
        drawn = tuple(replace(call, rows=call.rows[rows]) for call in self.drawn)
        return Latents(drawn, None if self.w_NLD is None else self.w_NLD[rows])

    @property
    def _free(self) -> list[Drawn]:
        """The draws whose numbers are coordinates: in w none, in z all but integers."""
        return [call for call in self.drawn if self.w_NLD is None and call.kind != "integers"]

    @property
    def vectors_NK(self) -> Tensor:
        """The coordinates: styles in w; in z the numbers drawn, uniform ones from -0.5 to 0.5, so that 0 is the mean
        of every coordinate."""
        if self.w_NLD is not None:
            return self.w_NLD.flatten(1)
        return torch.cat([(call.rows - _CENTRES[call.kind]).flatten(1) for call in self._free], dim=1)

    @property
    def spread_K(self) -> Tensor:
        """The scale of each coordinate in z; in w, the scales are the network's, and they are 1."""
        if self.w_NLD is not None:
            return torch.ones(self.w_NLD[0].numel())
        return torch.cat([torch.full((call.rows[0].numel(),), _SPREADS[call.kind]) for call in self._free])

    @property
    def bounds_K(self) -> Tensor:
        """How far from 0 each coordinate may lie: half the range of uniform numbers, no limit for others."""
        if self.w_NLD is not None:
            return torch.full((self.w_NLD[0].numel(),), torch.inf)
        limits = {"normal": torch.inf, "uniform": 0.5}
        return torch.cat([torch.full((call.rows[0].numel(),), limits[call.kind]) for call in self._free])

    def at(self, vectors_MK: Tensor) -> Latents:
        """Latents with these coordinates; what is no coordinate (noise maps in w, integers) is that of the first of the
        N samples. Differentiable."""
        num_samples = len(vectors_MK)
        if self.w_NLD is not None:
            rest = tuple(replace(call, rows=_repeated(call.rows, num_samples)) for call in self.drawn)
            return Latents(rest, vectors_MK.unflatten(1, self.w_NLD.shape[1:]))
        drawn, position = [], 0
        for call in self.drawn:
            if call.kind == "integers":
                drawn.append(replace(call, rows=_repeated(call.rows, num_samples)))
                continue
            size = call.rows[0].numel()
            part_MK = vectors_MK[:, position : position + size] + _CENTRES[call.kind]
            drawn.append(replace(call, rows=part_MK.reshape(num_samples, *call.rows.shape[1:])))
            position += size
        return Latents(tuple(drawn))


def _repeated(rows: Tensor, num_samples: int) -> Tensor:
    return rows[:1].expand(num_samples, *rows.shape[1:])
