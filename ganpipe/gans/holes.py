"""Holes in images, for GANs that complete them: functions of draws, which depend on seed and sample.

Legend: N samples, C channels, H = W image size, B blocks or bends, P pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .draws import Draws

HoleKind = Literal["centre", "block", "blocks", "strokes"]
_GREY = 1 / 255
"""The value of the byte 128."""


def hole_masks(kind: HoleKind, size: int, draws: Draws) -> Tensor:
    """1 where an image is missing, else 0, (N, 1, H, W).

    Args:
        kind: `centre`: the middle quarter of the image's area. `blocks`: two to four blocks of 1/6 to 1/3 of the
            image's side at random places. `block`: one block, a quarter to half of the side, at a random place.
            `strokes`: a broad line of random bends.
    """
    if kind == "centre":
        mask_1HW = torch.zeros(1, size, size)
        mask_1HW[:, size // 4 : size - size // 4, size // 4 : size - size // 4] = 1
        return mask_1HW.expand(len(draws.uniform()), 1, size, size)
    if kind == "strokes":
        return _strokes(size, draws)
    count, smallest, largest = (4, size / 6, size / 3) if kind == "blocks" else (1, size / 4, size / 2)
    drawn_NB5 = draws.uniform(count, 5)
    sides_NB2 = smallest + (largest - smallest) * drawn_NB5[..., :2]
    starts_NB2 = ((size - sides_NB2) * drawn_NB5[..., 2:4]).round()
    places_H = torch.arange(size)
    inside_NB2H = (places_H >= starts_NB2[..., None]) & (places_H < (starts_NB2 + sides_NB2.round())[..., None])
    is_there_NB = (torch.arange(count) < 2) | (drawn_NB5[..., 4] < 0.5)
    masks_NBHW = inside_NB2H[:, :, 0, :, None] & inside_NB2H[:, :, 1, None, :] & is_there_NB[..., None, None]
    return masks_NBHW.any(1, keepdim=True).float()


_NUM_BENDS = 6


def _strokes(size: int, draws: Draws) -> Tensor:
    """A line with random bends, as broad as 1/12 to 1/6 of the image's side (after Yu 2018, arXiv 1806.03589)."""
    drawn_N = draws.uniform(2 * _NUM_BENDS + 4)
    lengths_NB = size * (0.1 + 0.25 * drawn_N[:, :_NUM_BENDS])
    turns_NB = (drawn_N[:, _NUM_BENDS : 2 * _NUM_BENDS] - 0.5) * math.pi * 1.2
    start_N12 = size * (0.2 + 0.6 * drawn_N[:, None, -4:-2])
    angles_NB = 2 * math.pi * drawn_N[:, -2, None] + turns_NB.cumsum(1)
    steps_NB2 = torch.stack([lengths_NB * angles_NB.sin(), lengths_NB * angles_NB.cos()], dim=2)
    ends_NB2 = (start_N12 + steps_NB2.cumsum(1)).clamp(0, size - 1)
    begins_NB2 = torch.cat([start_N12, ends_NB2[:, :-1]], dim=1)
    axis = torch.arange(size, dtype=torch.float32)
    pixels_P2 = torch.cartesian_prod(axis, axis)
    nearest_NP = torch.full((len(drawn_N), size * size), math.inf)
    for begin_N12, end_N12 in zip(begins_NB2.split(1, 1), ends_NB2.split(1, 1), strict=True):
        along_N12 = end_N12 - begin_N12
        share_NP = ((pixels_P2 - begin_N12) * along_N12).sum(2) / along_N12.square().sum(2).clamp(min=1e-6)
        distance_NP = (pixels_P2 - begin_N12 - share_NP.clamp(0, 1)[..., None] * along_N12).norm(dim=2)
        nearest_NP = torch.minimum(nearest_NP, distance_NP)
    radius_N1 = size * (1 + drawn_N[:, -1, None]) / 24
    return (nearest_NP <= radius_N1).float().reshape(-1, 1, size, size)


@dataclass(frozen=True)
class Hole:
    """The mask of a hole as an image: -1 where the image is known, 1 where it is missing, (N, 1, H, W)."""

    kind: HoleKind

    def __call__(self, images_NCHW: Tensor, draws: Draws) -> Tensor:
        mask_N1HW = hole_masks(self.kind, images_NCHW.shape[-1], draws)
        return (2 * mask_N1HW - 1).to(images_NCHW.device, images_NCHW.dtype, non_blocking=True)


@dataclass(frozen=True)
class WithHole:
    """Images that are grey where `Hole` of the same kind, with the same draws, says that they are missing."""

    kind: HoleKind

    def __call__(self, images_NCHW: Tensor, draws: Draws) -> Tensor:
        return with_hole(images_NCHW, Hole(self.kind)(images_NCHW, draws))


def with_hole(images_NCHW: Tensor, mask_N1HW: Tensor) -> Tensor:
    """Images that are grey where the mask is above zero."""
    return torch.where(mask_N1HW > 0, _GREY, images_NCHW)
