"""GoGAN's stages, and BGAN's binary pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_parts import make_loop

from ganpipe.evaluation.sampling import sample_images
from ganpipe.gans.base import Batch, Progress
from ganpipe.gans.draws import BatchDraws


def parameters_of_slot(loop: object, slot: int) -> dict[str, torch.Tensor]:
    gan = loop.state.gan  # type: ignore[attr-defined]
    return {
        name: getattr(gan, f"stage_{slot}_{name.replace('.', '_')}").clone()
        for name, _ in gan.generator.named_parameters()
    }


def test_a_stage_of_gogan_is_ranked_above_the_end_of_the_one_before() -> None:
    loop = make_loop("gogan", settings={"num_images": 32 * 16})  # two critic updates a step: 8 steps of each stage
    while loop.state.gan.stage(loop.state.progress) == 0:
        metrics = loop.step()
        assert "critic_ranking" not in metrics
    end = {name: value.detach().clone() for name, value in loop.state.gan.generator.named_parameters()}  # type: ignore[union-attr]
    for _ in range(3):
        metrics = loop.step()
        assert metrics["critic_ranking"] > 0
    before, now = parameters_of_slot(loop, 0), parameters_of_slot(loop, 1)
    assert all(torch.equal(before[name], end[name]) for name in end)
    live = dict(loop.state.gan.generator.named_parameters())  # type: ignore[union-attr]
    assert all(torch.equal(now[name], live[name]) for name in end)
    assert any(not torch.equal(now[name], end[name]) for name in end)


def test_binary_pixels_are_black_or_white_and_have_the_generators_probability() -> None:
    loop = make_loop("bgan", pixels="binary")
    batch = loop.fetch(0, 4)
    assert set(batch["image"].unique().tolist()) == {-1.0, 1.0}
    gan = loop.state.gan
    means = torch.full((1, *gan.data.image_shape), 0.5, dtype=torch.float64)
    drawn = gan._drawn(means, Batch(1, BatchDraws(0, 1, 0, 1), dtype=torch.float64), 400)  # type: ignore[operator]
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)
    images = sample_images(gan, loop.state.progress, range(4))
    assert set(np.unique(images)) <= {0, 255}


def test_bgan_learns_binary_pixels_without_a_gradient_through_them() -> None:
    rates = {"adam_generator": 5e-3, "adam_discriminator": 1e-3}
    fast = {name: {"lr": rate, "beta1": 0.5, "beta2": 0.999} for name, rate in rates.items()}
    settings = {"num_images": 32 * 150, "batch_size": 32, "precision": "fp32", "ema_half_life": 200}
    loop = make_loop("bgan", settings=settings, pixels="binary", num_samples=10, **fast)
    real = loop.fetch(0, 256)["image"].flatten(1)

    def distance() -> float:
        with loop.state.averaged() as gan:
            made = torch.from_numpy(sample_images(gan, loop.state.progress, range(64))).float().flatten(1) / 127.5 - 1
        return float(torch.cdist(made, real).square().min(1).values.mean())

    before = distance()
    loop.run()
    assert loop.state.gan.stage(Progress(0, 1)) == 0
    assert distance() < before / 3
