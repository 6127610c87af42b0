"""Encoders beside DCGAN's networks, for GANs that also map images to codes; any power-of-two image size.

Legend: N samples, D units of a code, C channels, H = W image size.
"""

from __future__ import annotations

from torch import Tensor, nn

from . import dcgan


def encoder(image_size: int, channels: int, width: int, num_outputs: int) -> nn.Sequential:
    """Images (N, C, H, W) -> (N, num_outputs): DCGAN's discriminator with these outputs in place of its logit."""
    *layers, logit, _ = dcgan.discriminator(image_size, channels, width)
    assert isinstance(logit, nn.Linear)
    return nn.Sequential(*layers, nn.Linear(logit.in_features, num_outputs))


def translator(image_size: int, channels: int, width: int, num_codes: int) -> nn.Sequential:
    """Images (N, C, H, W) -> images in [-1, 1], (N, C, H, W), through a code (N, num_codes)."""
    return nn.Sequential(
        encoder(image_size, channels, width, num_codes), dcgan.generator(num_codes, image_size, channels, width)
    )


class AutoEncoder(nn.Module):
    """Images (N, C, H, W) -> their reconstructions in [-1, 1], (N, C, H, W), and their codes (N, D).

    An encoder, and DCGAN's generator as its decoder.
    """

    def __init__(self, image_size: int, channels: int, width: int, num_codes: int) -> None:
        super().__init__()
        self.encoder = encoder(image_size, channels, width, num_codes)
        self.decoder = dcgan.generator(num_codes, image_size, channels, width)

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        codes_ND = self.encoder(images_NCHW)
        return self.decoder(codes_ND), codes_ND


class FeatureDiscriminator(nn.Module):
    """Images (N, C, H, W) -> feature maps (N, D, H / 4, W / 4) and logits (N,): DCGAN's discriminator, which also gives
    what its second convolution finds, the first one with batch norm.

    That is a quarter of the image's size, as in table 1 of Larsen 2015 (arXiv 1512.09300). Batch norm matters: it gives
    the features a unit variance, with which they are compared.
    """

    def __init__(self, image_size: int, channels: int, width: int) -> None:
        super().__init__()
        layers = dcgan.discriminator(image_size, channels, width)
        norm = next(number for number, layer in enumerate(layers) if isinstance(layer, nn.BatchNorm2d))
        self.inner, self.outer = layers[: norm + 2], layers[norm + 2 :]  # with its activation

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        maps_NDHW = self.inner(images_NCHW)
        return maps_NDHW, self.outer(maps_NDHW)
