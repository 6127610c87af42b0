"""Randomness as a function: what belongs to a sample (latents, labels, masks) is drawn here, never from a global state.

Legend: N samples in this share, G samples in the whole (global) batch.

A GAN asks its batch for numbers (`batch.draws.normal(100)`); where they come from differs:

- in training, `BatchDraws`: drawn for the global batch from f(seed, step, phase, update), of which each worker takes
  its rows, so that one worker and many train on the same numbers;
- in evaluation and in the registry, `SeededDraws`: row i from f(seed of row i) alone, so that a sample is the same
  whatever batch it is generated in;
- between two samples, `InterpolatedDraws`.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) that depends on every part and on their order (BLAKE2b)."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def seed_networks(seed: int, device: torch.device) -> None:
    """Seed what networks on `device` draw by themselves: dropout, noise maps.

    Not by torch.manual_seed: it also prepares every other kind of device, which takes longer than a small layer.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def truncated_normal(normal: Tensor, threshold: float) -> Tensor:
    """Normal numbers -> numbers from the normal distribution that is truncated to [-threshold, threshold].

    By the inverse distribution function: the distribution is that of drawing again whatever lies outside (Brock 2018,
    arXiv 1809.11096, section 3.1), and each result is a monotone function of one drawn number, so that a seed's sample
    changes steadily with the threshold.
    """
    within = torch.erf(normal.double() / math.sqrt(2)) * math.erf(threshold / math.sqrt(2))
    return (math.sqrt(2) * torch.erfinv(within)).to(normal.dtype)


class Draws(ABC):
    """A stream of random numbers for N samples; each call continues the stream. Results lie on the CPU, float32."""

    @abstractmethod
    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (N, *shape)."""

    @abstractmethod
    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), (N, *shape)."""

    @abstractmethod
    def integers(self, high: int) -> Tensor:
        """Uniform integers in [0, high), (N,), int64."""


class BatchDraws(Draws):
    """Rows [start, stop) of what is drawn for a global batch of G samples from one seed."""

    def __init__(self, seed: int, num_global: int, start: int, stop: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._num_global = num_global
        self._rows = slice(start, stop)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self._num_global, *shape, generator=self._generator)[self._rows]

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self._num_global, *shape, generator=self._generator)[self._rows]

    def integers(self, high: int) -> Tensor:
        return torch.randint(high, (self._num_global,), generator=self._generator)[self._rows]


class SeededDraws(Draws):
    """One seed per sample."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(derive_seed("sample", seed)) for seed in seeds]

    def normal(self, *shape: int) -> Tensor:
        return torch.stack([torch.randn(shape, generator=generator) for generator in self._generators])

    def uniform(self, *shape: int) -> Tensor:
        return torch.stack([torch.rand(shape, generator=generator) for generator in self._generators])

    def integers(self, high: int) -> Tensor:
        return torch.cat([torch.randint(high, (1,), generator=generator) for generator in self._generators])


class InterpolatedDraws(Draws):
    """Samples on the way from one seed (fraction 0) to another (fraction 1).

    Normal numbers are interpolated on the sphere (slerp; White 2016, arXiv 1609.04468), since a straight line between
    two high-dimensional normal vectors leaves the shell on which the generator was trained. Uniform numbers are
    interpolated linearly, and integers are those of the first seed.
    """

    def __init__(self, seed: int, other_seed: int, fractions: Sequence[float]) -> None:
        self._ends = SeededDraws([seed, other_seed])
        self._fractions_N = torch.tensor(list(fractions), dtype=torch.float32)

    def _fractions_like(self, first: Tensor) -> Tensor:
        return self._fractions_N.reshape(-1, *[1] * first.dim())

    def normal(self, *shape: int) -> Tensor:
        first, second = self._ends.normal(*shape)
        fractions = self._fractions_like(first)
        cosine = torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0).clamp(-1, 1)
        angle = torch.acos(cosine)
        if angle.sin() < 1e-4:  # (anti)parallel ends, as in one dimension: the arc is undefined
            return torch.lerp(first.unsqueeze(0), second.unsqueeze(0), fractions)
        return (torch.sin((1 - fractions) * angle) * first + torch.sin(fractions * angle) * second) / torch.sin(angle)

    def uniform(self, *shape: int) -> Tensor:
        first, second = self._ends.uniform(*shape)
        return torch.lerp(first.unsqueeze(0), second.unsqueeze(0), self._fractions_like(first))

    def integers(self, high: int) -> Tensor:
        return self._ends.integers(high)[:1].expand(len(self._fractions_N))
