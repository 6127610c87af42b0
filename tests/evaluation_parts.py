"""Small real data for the tests of evaluation."""

from __future__ import annotations

import numpy as np
import torch
from manifest_parts import of_images
from sklearn.datasets import load_digits
from torch import nn

from ganpipe import gans
from ganpipe.data.loading.cache import CachedDataset
from ganpipe.data.loading.dataset import Dataset
from ganpipe.data.shards.manifest import Manifest, Shard
from ganpipe.gans.base import DataSpec, Gan, GanConfig, Phase, Player, Progress

SIZE = 16
PROGRESS = Progress(0, 1)


class Unlearned(Gan):
    """A GAN that has nothing to learn: with weights, of which nothing depends."""

    Config = GanConfig
    has_latents = False

    def __init__(self, data: DataSpec) -> None:
        super().__init__(GanConfig(), data)
        self.weight = nn.Parameter(torch.zeros(1))

    def players(self) -> dict[str, Player]:
        return {}

    def phases(self, progress: Progress) -> list[Phase]:
        return []


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 handwritten digits (8 x 8, from the UCI repository), doubled in size: uint8 (N, 1, 16, 16), and labels."""
    images, labels = load_digits(return_X_y=True)
    images_NCHW = (images.reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8)
    return images_NCHW.repeat(2, axis=2).repeat(2, axis=3), labels.astype(np.int64)


def digits_dataset(num_images: int = 300, start: int = 0, sha256: str = "0" * 64, split: str = "train") -> Dataset:
    """A real `Dataset` of some digits, with its arrays in memory."""
    images_NCHW, labels_N = digits()
    shard = Shard(
        name=f"{split}-000000.tar", sha256=sha256, num_bytes=1024 * num_images, num_samples=num_images, split=split
    )
    manifest = Manifest(
        source="digits",
        description="handwritten digits",
        licence="CC BY 4.0",
        shards=(shard,),
        **of_images(SIZE, 1, "0123456789"),
    )
    rows = slice(start, start + num_images)
    return CachedDataset(manifest, split, {"image": images_NCHW[rows], "label": labels_N[rows]})


def new_gan(name: str) -> Gan:
    """A GAN with its first weights."""
    gan_class = gans.load(name)
    return gan_class(gan_class.Config(), DataSpec.images(SIZE, 1, 10))
