"""Where a GAN takes a faster way to the same numbers, they are the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from training_parts import largest_difference, make_loop, weights_of

from ganpipe import gans
from ganpipe.gans.base import Batch, Progress
from ganpipe.gans.pair import AdversarialPair
from ganpipe.losses import penalties
from ganpipe.networks import mlp

PAIRS = [name for name in gans.names() if issubclass(gans.load(name), AdversarialPair)]
IN_ONE_PASS = [name for name in PAIRS if not gans.load(name).separate_passes]


def test_the_written_down_gradient_of_a_critic_is_autograds() -> None:
    torch.manual_seed(0)
    critic = mlp.image_discriminator((1, 8, 8), [32, 24, 16]).double()
    images = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    expected, written = penalties.input_gradient(critic, images).flatten(1), mlp.input_gradient(critic, images)
    assert torch.allclose(written, expected, rtol=0, atol=1e-14)

    weights = [layer.weight for layer in critic if isinstance(layer, nn.Linear)]
    by_autograd, by_hand = (
        torch.autograd.grad((value.norm(dim=1) - 1).square().mean(), weights) for value in (expected, written)
    )
    assert max(gradient.abs().max() for gradient in by_autograd) > 1e-3, "a gradient of nothing shows nothing"
    for first, second in zip(by_autograd, by_hand, strict=True):
        assert torch.allclose(first, second, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", IN_ONE_PASS)
def test_real_and_generated_images_in_one_pass_train_like_in_two(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"dropout": 0.0} if "dropout" in gans.load(name).Config.model_fields else {}  # masks differ between passes
    loops = []
    for apart in (False, True):
        monkeypatch.setattr(gans.load(name), "separate_passes", apart)
        loop = make_loop(name, **config)
        for _ in range(3):
            loop.step()
        loops.append(loop)
    together, apart_loop = loops
    assert largest_difference(weights_of(together), weights_of(make_loop(name, **config))) > 0, "nothing was trained"
    assert largest_difference(weights_of(together), weights_of(apart_loop)) < 1e-9


@pytest.mark.parametrize("name", [name for name in PAIRS if gans.load(name).shares_images])
def test_images_that_serve_both_players_train_like_images_made_for_each(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"dropout": 0.0} if "dropout" in gans.load(name).Config.model_fields else {}  # masks differ between passes
    loops = []
    keep = Batch.once

    def once_per_phase(batch: Batch, name: str, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        if name != "generated":  # codes belong to the images of all phases
            return keep(batch, name, compute)
        made = made_for.setdefault(id(batch), [])
        made += [] if made else [batch, compute()]
        return made[1]

    made_for: dict[int, list[Any]] = {}
    for once in (keep, once_per_phase):
        monkeypatch.setattr(Batch, "once", once)
        loop = make_loop(name, **config)
        for _ in range(3):
            loop.step()
        loops.append(loop)
    shared, each = loops
    assert shared.state.gan.turns(Progress(900, 1000))[0][-1].player == "generator"
    assert largest_difference(weights_of(shared), weights_of(make_loop(name, **config))) > 0, "nothing was trained"
    assert largest_difference(weights_of(shared), weights_of(each)) < 1e-9


@pytest.mark.parametrize("name", PAIRS)
def test_a_network_with_batch_norm_sees_real_and_generated_images_apart(name: str) -> None:
    gan = make_loop(name).state.gan
    discriminator = getattr(gan, gan.discriminator_name)  # type: ignore[arg-type]
    if any(isinstance(child, nn.modules.batchnorm._BatchNorm) for child in discriminator.modules()):
        assert gan.separate_passes
