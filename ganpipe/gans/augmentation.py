"""Augmentation of what a discriminator sees, real and generated alike, so that it cannot learn few images by heart.

Everything is a function of the batch's draws, and differentiable: gradients reach the generator. Moves along the axes
are products with matrices, because the usual resampling has no deterministic backward pass on a GPU.

Legend: N samples, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from ..section import Section
from .draws import Draws

Kind = Literal["none", "diffaugment", "ada"]
OVERFITTING = "overfitting"
"""The observation that adaptive augmentation follows: r_t of Karras 2020, in [-1, 1]."""


class Batch(Protocol):
    """What augmentation uses of a batch."""

    @property
    def draws(self) -> Draws: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def to_device(self, tensor: Tensor) -> Tensor: ...

    def observe(self, name: str, value: Tensor) -> None: ...


class AugmentSettings(Section):
    """Augmentation of what the discriminator sees: for few images (below some 10,000)."""

    kind: Kind = "none"
    """none; diffaugment (Zhao 2020, arXiv 2006.10738): colour, translation and cutout, always; ada (Karras 2020, arXiv
    2006.06676): flips, turns, translation, scaling and colour, with a probability that follows the discriminator."""
    target: float = Field(default=0.6, gt=0, lt=1)
    """ada: how far the discriminator may overfit, as the mean sign of its logits of real images."""
    adapt_images: int = Field(default=100_000, ge=1)
    """ada: images in which the probability can go from 0 to 1; 500,000 in the paper, whose trainings see millions."""


class Augmentation(nn.Module):
    """No augmentation: images pass as they are."""

    is_active: ClassVar[bool] = False
    """Whether images are changed."""

    def forward(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        """Images (k * N, C, H, W) augmented; each sample of the batch has draws of its own in each of the k parts."""
        return images_NCHW

    def observe(self, real_logits: Tensor, batch: Batch) -> None:
        """Note what the discriminator says of real images, augmented ones."""

    def adapt(self, observed: Mapping[str, Tensor], num_images: int) -> None:
        """Adapt to the observations of a step that saw `num_images` images."""


class DiffAugment(Augmentation):
    """Differentiable augmentation (Zhao 2020, section 3 and its appendix): colour, translation, cutout."""

    is_active = True

    def forward(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        images_NCHW = images_NCHW.to(batch.dtype)  # autocast returns bf16
        uniform = _Columns(images_NCHW, batch, batch.draws.uniform, 7)
        hidden = images_NCHW + (uniform() - 0.5)
        grey_N1HW = hidden.mean(1, keepdim=True)
        hidden = grey_N1HW + (hidden - grey_N1HW) * (2 * uniform())
        mean_N111 = hidden.mean((1, 2, 3), keepdim=True)
        hidden = mean_N111 + (hidden - mean_N111) * (uniform() + 0.5)
        height, width = images_NCHW.shape[2:]
        scale = torch.ones_like(mean_N111)
        rows = _resampling(height, scale, ((2 * uniform() - 1) * height / 8).round(), reflects=False)
        columns = _resampling(width, scale, ((2 * uniform() - 1) * width / 8).round(), reflects=False)
        hidden = _resampled(hidden, rows, columns)
        hole_N1HW = _cut_out(height, uniform()).transpose(2, 3) * _cut_out(width, uniform())
        return hidden * (1 - hole_N1HW)


class AdaptiveAugment(Augmentation):
    """Adaptive discriminator augmentation (Karras 2020, section 3 and appendix B).

    Departs from the paper in that it turns by quarters only, and resamples linearly.
    """

    is_active = True
    chance: Tensor
    """p, the probability of each of the changes, in [0, 1]."""

    def __init__(self, target: float, adapt_images: int) -> None:
        super().__init__()
        self.target, self.adapt_images = target, adapt_images
        self.register_buffer("chance", torch.zeros(()))

    def forward(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
        images_NCHW = images_NCHW.to(batch.dtype)  # autocast returns bf16
        uniform = _Columns(images_NCHW, batch, batch.draws.uniform, 19)
        normal = _Columns(images_NCHW, batch, batch.draws.normal, 7)

        def chosen(value: Tensor, otherwise: float) -> Tensor:
            """With the probability p `value`, in each row, else `otherwise`."""
            return torch.where(uniform() < self.chance, value, otherwise)

        flip = chosen(1 - 2 * (uniform() < 0.5).to(images_NCHW.dtype), 1.0)
        quarters = chosen((uniform() * 4).floor(), 0.0)
        shifts = [chosen(((2 * uniform() - 1) * side / 8).round(), 0.0) for side in images_NCHW.shape[2:]]
        scale = chosen(torch.exp2(0.2 * normal()), 1.0)
        stretch = chosen(torch.exp2(0.2 * normal()), 1.0)
        slides = [chosen(0.125 * normal() * side, 0.0) for side in images_NCHW.shape[2:]]
        up = torch.where((quarters == 2) | (quarters == 3), -1.0, 1.0)
        left = flip * torch.where((quarters == 1) | (quarters == 2), -1.0, 1.0)
        turned = torch.where(quarters.remainder(2) == 1, images_NCHW.transpose(2, 3), images_NCHW)
        moved = _resampled(
            turned,
            _resampling(turned.shape[2], up * scale * stretch, shifts[0] + slides[0], reflects=True),
            _resampling(turned.shape[3], left * scale / stretch, shifts[1] + slides[1], reflects=True),
        )
        bright = moved + chosen(0.2 * normal(), 0.0)
        contrast = chosen(torch.exp2(0.5 * normal()), 1.0)
        if images_NCHW.shape[1] != 3:
            return bright * contrast
        luma = chosen(1 - 2 * (uniform() < 0.5).to(images_NCHW.dtype), 1.0)
        angle = chosen((2 * uniform() - 1) * math.pi, 0.0)
        saturation = chosen(torch.exp2(normal()), 1.0)
        return _coloured(bright, luma * contrast, angle, saturation * contrast)

    @torch.no_grad()
    def observe(self, real_logits: Tensor, batch: Batch) -> None:
        batch.observe(OVERFITTING, real_logits.float().sign())

    @torch.no_grad()
    def adapt(self, observed: Mapping[str, Tensor], num_images: int) -> None:
        if OVERFITTING in observed:
            step = (observed[OVERFITTING] - self.target).sign() * (num_images / self.adapt_images)
            self.chance.add_(step.to(self.chance.dtype)).clamp_(0, 1)


def build(settings: AugmentSettings) -> Augmentation:
    """The augmentation that the settings name."""
    if settings.kind == "ada":
        return AdaptiveAugment(settings.target, settings.adapt_images)
    return DiffAugment() if settings.kind == "diffaugment" else Augmentation()


class _Columns:
    """Numbers for each row of a stack of images, column by column, each (k * N, 1, 1, 1); drawn and moved at once."""

    def __init__(self, images_NCHW: Tensor, batch: Batch, draw: Callable[[int], Tensor], num_columns: int) -> None:
        first = draw(num_columns)
        parts = [first, *[draw(num_columns) for _ in range(len(images_NCHW) // len(first) - 1)]]
        self._columns = iter(batch.to_device(torch.cat(parts)).unbind(1))

    def __call__(self) -> Tensor:
        return next(self._columns)[:, None, None, None]


def _resampling(side: int, scale: Tensor, offset: Tensor, reflects: bool) -> Tensor:
    """Matrices (N, 1, side, side) that resample one axis linearly: scaled around its middle, then moved.

    Args:
        scale: (N, 1, 1, 1), above 0; a negative one mirrors.
        offset: (N, 1, 1, 1), in pixels.
        reflects: what lies outside is the mirrored inside, instead of zero.
    """
    pixels = torch.arange(side, device=scale.device, dtype=scale.dtype)
    middle = (side - 1) / 2
    source_N11S = (pixels - middle - offset) / scale + middle
    if reflects:
        within = (source_N11S + 0.5).remainder(2 * side)
        source_N11S = (side - (within - side).abs() - 0.5).clamp(0, side - 1)
    return (1 - (source_N11S.transpose(2, 3) - pixels).abs()).clamp(min=0)


def _resampled(images_NCHW: Tensor, rows_N1HH: Tensor, columns_N1WW: Tensor) -> Tensor:
    # In the images' own precision: of bf16's 8 bits, positions would lose most.
    with torch.autocast(images_NCHW.device.type, enabled=False):
        return rows_N1HH @ images_NCHW @ columns_N1WW.transpose(2, 3)


def _cut_out(side: int, place: Tensor) -> Tensor:
    """1 within half of the side around `place`, a share of it, (N, 1, 1, 1), else 0; (N, 1, 1, side)."""
    pixels = torch.arange(side, device=place.device, dtype=place.dtype)
    first = ((side + 1) * place).floor() - side // 4
    return ((pixels >= first) & (pixels < first + side // 2)).to(place.dtype)


def _coloured(images_N3HW: Tensor, luma: Tensor, angle: Tensor, saturation: Tensor) -> Tensor:
    """Colours as vectors, turned by `angle` around the grey axis, and scaled along it by `luma`, across it by
    `saturation`; each (N, 1, 1, 1)."""
    grey = images_N3HW.mean(1, keepdim=True)
    across = images_N3HW - grey
    # The cross product with the axis (1, 1, 1) / sqrt(3).
    turned = (across.roll(1, 1) - across.roll(-1, 1)) / math.sqrt(3)
    return luma * grey + saturation * (angle.cos() * across + angle.sin() * turned)
