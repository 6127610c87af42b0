"""The first yardstick: GAN training as most people write it.

The networks are ganpipe's own, so that only the training differs: fp32, images decoded with Pillow from PNG files by a
DataLoader with two workers, default Adam, binary cross-entropy on a sigmoid, generator then discriminator, and each
step logged.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ganpipe.gans import load
from ganpipe.gans.base import DataSpec, GanConfig


class PngFolder(Dataset[Tensor]):
    """PNG files of a folder as tensors in [-1, 1], (C, H, W)."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.rglob("*.png"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        pixels = np.array(Image.open(self.paths[index]).convert("L"), dtype=np.float32)
        return (torch.from_numpy(pixels)[None] / 255 - 0.5) / 0.5


class Textbook:
    """One training, a window at a time."""

    def __init__(self, gan: str, config: GanConfig, data: DataSpec, images: Path, batch_size: int, log: TextIO) -> None:
        network = load(gan)(config, data)
        self.generator: nn.Module = network.generator
        self.discriminator: nn.Module = getattr(network, network.discriminator_name)
        self.num_latents, self.batch_size, self.log = config.num_latents, batch_size, log
        adam_g, adam_d = config.adam_generator, getattr(config, f"adam_{network.discriminator_name}")
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), adam_g.lr, (adam_g.beta1, adam_g.beta2))
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), adam_d.lr, (adam_d.beta1, adam_d.beta2))
        self.step = self.wasserstein_step if network.discriminator_name == "critic" else self.cross_entropy_step
        self.num_steps = 0
        self.loader = DataLoader(PngFolder(images), batch_size, shuffle=True, num_workers=2, drop_last=True)
        self.batches = self.endless()

    def endless(self) -> Iterator[Tensor]:
        while True:
            yield from self.loader

    def window(self, seconds: float) -> float:
        """Train for about so long. Returns real images per second."""
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            self.step(next(self.batches))
            steps += 1
        return steps * self.batch_size / (time.perf_counter() - start)

    def cross_entropy_step(self, real: Tensor) -> None:
        criterion = nn.BCELoss()
        valid, fake = torch.ones(len(real)), torch.zeros(len(real))
        self.optimizer_g.zero_grad()
        images = self.generator(torch.randn(len(real), self.num_latents))
        loss_g = criterion(torch.sigmoid(self.discriminator(images)), valid)
        loss_g.backward()
        self.optimizer_g.step()
        self.optimizer_d.zero_grad()
        loss_real = criterion(torch.sigmoid(self.discriminator(real)), valid)
        loss_fake = criterion(torch.sigmoid(self.discriminator(images.detach())), fake)
        loss_d = loss_real + loss_fake
        loss_d.backward()
        self.optimizer_d.step()
        self.report(loss_d, loss_g)

    def wasserstein_step(self, real: Tensor) -> None:
        self.optimizer_d.zero_grad()
        fake = self.generator(torch.randn(len(real), self.num_latents)).detach()
        mixing = torch.rand(len(real), 1, 1, 1)
        mixed = (mixing * real + (1 - mixing) * fake).requires_grad_(True)
        score = self.discriminator(mixed)
        gradient = torch.autograd.grad(score, mixed, torch.ones_like(score), create_graph=True, retain_graph=True)[0]
        penalty = ((gradient.view(len(real), -1).norm(2, dim=1) - 1) ** 2).mean()
        loss_d = -self.discriminator(real).mean() + self.discriminator(fake).mean() + 10 * penalty
        loss_d.backward()
        self.optimizer_d.step()
        if self.num_steps % 5 == 4:
            self.optimizer_g.zero_grad()
            loss_g = -self.discriminator(self.generator(torch.randn(len(real), self.num_latents))).mean()
            loss_g.backward()
            self.optimizer_g.step()
            self.report(loss_d, loss_g)
        else:
            self.report(loss_d)

    def report(self, *losses: Tensor) -> None:
        self.num_steps += 1
        print(f"step {self.num_steps}:", *(f"{loss.item():.4f}" for loss in losses), file=self.log)
