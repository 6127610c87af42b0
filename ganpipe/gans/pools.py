"""Pools of earlier generated images, from which a discriminator is shown some in place of new ones.

Legend: N samples in this share, G samples in the global batch, S slots of a sample, C channels, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .draws import Draws


@dataclass(frozen=True)
class PoolSpec:
    """What a GAN asks for: at least `num_images` images of `shape` (C, H, W)."""

    num_images: int
    shape: tuple[int, int, int]


class Pool(nn.Module):
    """A history of generated images (Shrivastava 2016, arXiv 1612.07828, section 2.3; CycleGAN has 50 of them).

    Each row of the global batch owns S slots: a worker needs only those of its own rows, and one worker and many see
    the same images. With batches of one image, as in the papers, that is the papers' pool.
    """

    images_GSCHW: Tensor
    num_filled_G: Tensor

    def __init__(self, spec: PoolSpec, batch_size: int) -> None:
        super().__init__()
        self.num_slots = math.ceil(spec.num_images / batch_size)
        self.register_buffer("images_GSCHW", torch.zeros(batch_size, self.num_slots, *spec.shape))
        self.register_buffer("num_filled_G", torch.zeros(batch_size, dtype=torch.int64))

    @torch.no_grad()
    def exchange(self, images_NCHW: Tensor, draws: Draws, first_row: int) -> Tensor:
        """For each image that image or, with probability 1/2 once its slots are full, an earlier one in its place.

        An image that is given away makes room for the new one. What is returned carries no gradient.

        Args:
            draws, first_row: the batch's.
        """
        chances_N = draws.uniform().to(images_NCHW.device, non_blocking=True)
        random_slots_N = draws.integers(self.num_slots).to(images_NCHW.device, non_blocking=True)
        rows = slice(first_row, first_row + len(images_NCHW))
        num_filled_N, slots_NSCHW = self.num_filled_G[rows], self.images_GSCHW[rows]
        images_NCHW = images_NCHW.to(slots_NSCHW.dtype)
        is_full_N = num_filled_N >= self.num_slots
        slot_N = torch.where(is_full_N, random_slots_N, num_filled_N)
        index_N1CHW = slot_N.reshape(-1, 1, 1, 1, 1).expand(-1, 1, *images_NCHW.shape[1:])
        earlier_NCHW = slots_NSCHW.gather(1, index_N1CHW).squeeze(1)
        swaps_N111 = (is_full_N & (chances_N < 0.5)).reshape(-1, 1, 1, 1)
        stays_N111 = (is_full_N & (chances_N >= 0.5)).reshape(-1, 1, 1, 1)
        slots_NSCHW.scatter_(1, index_N1CHW, torch.where(stays_N111, earlier_NCHW, images_NCHW).unsqueeze(1))
        num_filled_N.add_(~is_full_N)
        return torch.where(swaps_N111, earlier_NCHW, images_NCHW)
