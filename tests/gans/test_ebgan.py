"""The losses of energy-based GANs against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_parts import make_loop

from ganpipe.gans.base import Batch, Progress
from ganpipe.gans.draws import BatchDraws
from ganpipe.losses.energy import energy_generator, margin_discriminator, pulling_away, reconstruction_energy

RANDOM = np.random.default_rng(0)


def test_an_energy_is_the_mean_squared_error_of_a_sample() -> None:
    first, second = RANDOM.normal(size=(2, 5, 3, 4, 4))
    found = reconstruction_energy(torch.from_numpy(first), torch.from_numpy(second))
    np.testing.assert_allclose(found, np.square(first - second).reshape(5, -1).mean(1))


def test_the_margin_on_both_of_its_sides() -> None:
    real = torch.tensor([0.1, 0.4], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([0.2, 0.7, 1.5], dtype=torch.float64, requires_grad=True)
    loss = margin_discriminator(real, fake, margin=1.0)
    assert loss.item() == pytest.approx((0.1 + 0.4) / 2 + (0.8 + 0.3 + 0.0) / 3)
    of_real, of_fake = torch.autograd.grad(loss, [real, fake])
    assert of_real.tolist() == [0.5, 0.5]
    assert of_fake.tolist() == pytest.approx([-1 / 3, -1 / 3, 0.0])  # none beyond the margin
    assert energy_generator(fake).item() == pytest.approx(0.8)


def test_the_repelling_term_against_numpy() -> None:
    codes = RANDOM.normal(size=(6, 4))
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    pairs = [np.dot(unit[i], unit[j]) ** 2 for i in range(6) for j in range(6) if i != j]
    assert pulling_away(torch.from_numpy(codes)).item() == pytest.approx(np.mean(pairs))


def test_the_repelling_term_of_orthogonal_parallel_and_single_codes() -> None:
    assert pulling_away(3 * torch.eye(4)).item() == 0
    parallel = torch.tensor([[1.0, 2.0], [-2.0, -4.0], [0.5, 1.0]])  # the sign does not count
    assert pulling_away(parallel).item() == pytest.approx(1)
    single = torch.ones(1, 4, requires_grad=True)
    assert pulling_away(single).item() == 0
    assert torch.autograd.grad(pulling_away(single), single)[0].isfinite().all()


def test_the_repelling_term_is_not_computed_in_bf16() -> None:
    codes = torch.from_numpy(RANDOM.normal(size=(16, 32))).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert pulling_away(codes).item() == pytest.approx(pulling_away(codes.double()).item(), rel=1e-5)


def test_the_generator_minimises_the_energy_and_the_repelling_term_of_its_own_images() -> None:
    loop = make_loop("ebgan", repelling_weight=0.5)
    gan = loop.state.gan.eval()
    batch = Batch(8, BatchDraws(1, 8, 0, 8), loop.fetch(0, 8), dtype=torch.float64)
    losses = gan.generator_losses(batch, Progress(0, 1))  # type: ignore[operator]
    images = gan.generate(Batch(8, BatchDraws(1, 8, 0, 8), dtype=torch.float64))  # type: ignore[operator]
    found, codes = gan.discriminator(images)  # type: ignore[operator]
    assert losses["adversarial"].item() == pytest.approx((images - found).square().mean().item())
    assert losses["repelling"].item() == pytest.approx(0.5 * pulling_away(codes).item())
