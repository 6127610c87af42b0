"""DCGAN: deep convolutional GAN (Radford 2015, arXiv 1511.06434)."""

from __future__ import annotations

from .convolutional import ConvolutionalPair, ConvolutionalSettings


class DcganSettings(ConvolutionalSettings):
    """The paper's values (section 4), except for the widths: 64 as in the authors' code; figure 1 has 128."""


class Dcgan(ConvolutionalPair):
    """Goodfellow's losses with convolutional networks.

    Real and generated images pass the discriminator in two passes, each with the statistics of its own kind, as in the
    authors' code.
    """

    Config = DcganSettings
