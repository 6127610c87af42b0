"""The networks of the conditional GAN (Mirza & Osindero 2014, arXiv 1411.1784, section 4.1).

Legend: N samples, Z latent size, K classes, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .mlp import Maxout, mlp


class ConditionalGenerator(nn.Module):
    """Latent and label each pass a ReLU layer; both together are then mapped to an image in [-1, 1], (N, C, H, W).

    The joint layer has batch norm.
    """

    def __init__(
        self,
        num_latents: int,
        num_classes: int,
        image_shape: tuple[int, int, int],
        latent_width: int,
        label_width: int,
        joint_width: int,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.image_shape = image_shape
        self.latent_layer = nn.Linear(num_latents, latent_width)
        self.label_layer = nn.Linear(num_classes, label_width)
        num_pixels = image_shape[0] * image_shape[1] * image_shape[2]
        self.joint_layers = mlp([latent_width + label_width, joint_width, num_pixels], nn.ReLU, batch_norm=True)

    def forward(self, z_NZ: Tensor, label_N: Tensor) -> Tensor:
        label_NK = F.one_hot(label_N, self.num_classes).to(z_NZ.dtype)
        joint = torch.cat([F.relu(self.latent_layer(z_NZ)), F.relu(self.label_layer(label_NK))], dim=1)
        image: Tensor = torch.tanh(self.joint_layers(joint))
        return image.unflatten(1, self.image_shape)


class ConditionalDiscriminator(nn.Module):
    """Image and label each pass a maxout layer; both together are then mapped to a logit, (N,). Dropout before each
    layer."""

    def __init__(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        image_width: int,
        label_width: int,
        joint_width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        num_pixels = image_shape[0] * image_shape[1] * image_shape[2]
        self.image_layer = Maxout(num_pixels, image_width, num_pieces=5)
        self.label_layer = Maxout(num_classes, label_width, num_pieces=5)
        # On a one-hot input a layer is a table of embeddings: with an embedding's unit variance the label weighs as
        # much as the image from the start. With a layer's usual 1 / sqrt(K) the labels were hardly learned.
        nn.init.normal_(self.label_layer.linear.weight)
        self.joint_layer = Maxout(image_width + label_width, joint_width, num_pieces=4)
        self.logit_layer = nn.Linear(joint_width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, image_NCHW: Tensor, label_N: Tensor) -> Tensor:
        label_NK = F.one_hot(label_N, self.num_classes).to(image_NCHW.dtype)
        joint = torch.cat([self.image_layer(image_NCHW.flatten(1)), self.label_layer(label_NK)], dim=1)
        logit: Tensor = self.logit_layer(self.dropout(self.joint_layer(self.dropout(joint))))
        return logit.flatten()
