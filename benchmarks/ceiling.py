"""The second yardstick: the same mathematics as ganpipe's training with no pipeline around it.

All images lie decoded in memory; the switches are the fastest that were found on two cores with avx512_bf16: bf16
autocast, channels-last, fused Adam, logits instead of a sigmoid, the discriminator's generated images for the
generator as well, real and generated images in one pass where there is no batch norm, and the fully connected critic's
gradient written down.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganpipe.gans import load
from ganpipe.gans.base import DataSpec, GanConfig
from ganpipe.networks import mlp


class Ceiling:
    """One training, a window at a time."""

    def __init__(
        self, gan: str, config: GanConfig, data: DataSpec, images: Tensor, batch_size: int, bf16: bool
    ) -> None:
        torch.manual_seed(0)
        network = load(gan)(config, data).to(memory_format=torch.channels_last)
        self.generator: nn.Module = network.generator
        self.discriminator: nn.Module = getattr(network, network.discriminator_name)
        self.num_latents, self.separate_passes, self.bf16 = config.num_latents, network.separate_passes, bf16
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.batch_size = batch_size
        self.parameters = {"g": list(self.generator.parameters()), "d": list(self.discriminator.parameters())}
        adam = {"g": config.adam_generator, "d": getattr(config, f"adam_{network.discriminator_name}")}
        self.optimizers = {
            key: torch.optim.Adam(self.parameters[key], adam[key].lr, (adam[key].beta1, adam[key].beta2), fused=True)
            for key in adam
        }
        self.live = [tensor for tensor in self.generator.state_dict().values() if tensor.is_floating_point()]
        self.average = [tensor.clone() for tensor in self.live]
        self.step = self.wasserstein_step if gan == "wgan_gp" else self.cross_entropy_step

    def window(self, seconds: float) -> float:
        """Train for about so long. Returns real images per second."""
        start, num_images = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            num_images += self.step()
        return num_images / (time.perf_counter() - start)

    def cross_entropy_step(self) -> int:
        with self.autocast():
            images = self.generated()

        def discriminator_loss() -> Tensor:
            real, fake = (logits.float() for logits in self.logits(self.real(), images.detach()))
            return F.softplus(-real).mean() + F.softplus(fake).mean()

        self.update("d", discriminator_loss)
        self.update("g", lambda: F.softplus(-self.discriminator(images).float()).mean())
        self.average_weights()
        return self.batch_size

    def wasserstein_step(self) -> int:
        def critic_loss() -> Tensor:
            with torch.no_grad():
                real_images, fake_images = self.real(), self.generated().float()
            real, fake = (scores.float() for scores in self.logits(real_images, fake_images))
            mixed = torch.lerp(fake_images, real_images, torch.rand(self.batch_size, 1, 1, 1))
            assert isinstance(self.discriminator, nn.Sequential)
            norm = mlp.input_gradient(self.discriminator, mixed).float().norm(dim=1)
            return fake.mean() - real.mean() + 10 * (norm - 1).square().mean()

        for _ in range(5):
            self.update("d", critic_loss)
        self.update("g", lambda: -self.discriminator(self.generated()).float().mean())
        self.average_weights()
        return 5 * self.batch_size

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bf16)

    def update(self, player: str, loss: Callable[[], Tensor]) -> None:
        with self.autocast():
            value = loss()
        for parameter, gradient in zip(
            self.parameters[player], torch.autograd.grad(value, self.parameters[player]), strict=True
        ):
            parameter.grad = gradient
        self.optimizers[player].step()

    def average_weights(self) -> None:
        torch._foreach_lerp_(self.average, self.live, 0.01)

    def logits(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        if self.separate_passes:
            return self.discriminator(real), self.discriminator(fake)
        real_logits, fake_logits = self.discriminator(torch.cat([real, fake.float()])).chunk(2)
        return real_logits, fake_logits

    def real(self) -> Tensor:
        return self.images[torch.randint(len(self.images), (self.batch_size,))]

    def generated(self) -> Tensor:
        images: Tensor = self.generator(torch.randn(self.batch_size, self.num_latents))
        return images
