"""LSGAN: least squares generative adversarial networks (Mao 2016, arXiv 1611.04076)."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..losses.adversarial import least_squares_discriminator, least_squares_generator
from .base import DataSpec
from .convolutional import ConvolutionalPair, ConvolutionalSettings


class LsganSettings(ConvolutionalSettings):
    """The 0-1 coding (eq. 9); a = -1, b = 1, c = 0 minimises Pearson's chi-squared divergence (eq. 8). DCGAN's networks
    and rates in place of the paper's deeper networks for 112 pixels, with 1e-3."""

    a: float = 0.0
    """The score that the discriminator gives to generated images."""
    b: float = 1.0
    """The score that the discriminator gives to real images."""
    c: float = 1.0
    """The score that the generator wants for its images."""


class Lsgan(ConvolutionalPair):
    """Scores are pulled to numbers, so images that are far on the right side of the boundary still give a gradient."""

    Config = LsganSettings
    config: LsganSettings
    augmentations = ("diffaugment",)  # where a score says real depends on a, b and c
    logged_score = staticmethod(nn.Identity())

    def __init__(self, config: LsganSettings, data: DataSpec) -> None:
        super().__init__(config, data)
        self.discriminator_loss = partial(least_squares_discriminator, real_target=config.b, fake_target=config.a)
        self.generator_loss = partial(least_squares_generator, target=config.c)
