"""Spectral normalisation: the singular value itself, from the first weights on and over updates."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from training_parts import make_loop

from ganpipe.gans.base import Progress
from ganpipe.losses import adversarial
from ganpipe.networks import sngan, spectral

LAYERS = {
    "convolution": lambda: nn.Conv2d(6, 16, 3),
    "linear": lambda: nn.Linear(40, 7),
    "embedding": lambda: nn.Embedding(10, 24),
}


def layer(kind: str) -> nn.Module:
    """A layer in double precision, normalised."""
    torch.manual_seed(0)
    found = LAYERS[kind]().double()
    spectral.normalise(found, (nn.Conv2d, nn.Linear, nn.Embedding))
    return found


def largest(weight: Tensor) -> float:
    """The largest singular value of a weight as a matrix, by numpy."""
    return float(np.linalg.svd(weight.detach().double().flatten(1).numpy(), compute_uv=False)[0])


def normalised(network: nn.Module) -> list[float]:
    """The spectral norms of the weights that the network computes with."""
    owners = [module for module in network.modules() if parametrize.is_parametrized(module, "weight")]
    return [largest(module.weight) for module in owners]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", LAYERS)
def test_sigma_is_the_largest_singular_value(kind: str) -> None:
    one = layer(kind)
    (parametrization,), weight = one.parametrizations.weight, one.parametrizations.weight.original  # type: ignore[union-attr]
    assert parametrization.sigma(weight).item() == pytest.approx(largest(weight), rel=0.03)  # from the start
    for _ in range(300):
        spectral.iterate(one)
    assert parametrization.sigma(weight).item() == pytest.approx(largest(weight), rel=1e-9)
    assert normalised(one) == pytest.approx([1.0], rel=1e-9)


def test_its_gradient_is_that_of_the_largest_singular_value() -> None:
    one = layer("linear")
    for _ in range(1000):
        spectral.iterate(one)
    weight = one.parametrizations.weight.original  # type: ignore[union-attr]
    wanted_RC = torch.randn(weight.shape, dtype=torch.float64)
    (found,) = torch.autograd.grad((one.weight * wanted_RC).sum(), weight)  # type: ignore[operator]
    by_svd = weight / torch.linalg.matrix_norm(weight, 2)
    (expected,) = torch.autograd.grad((by_svd * wanted_RC).sum(), weight)
    assert torch.allclose(found, expected, atol=1e-9)


def test_a_forward_pass_changes_nothing_and_an_average_of_vectors_still_serves() -> None:
    one = layer("linear")
    before = {name: buffer.clone() for name, buffer in one.named_buffers()}
    weight = one.weight.clone()  # type: ignore[operator]
    one(torch.randn(3, 40, dtype=torch.float64))
    assert all(torch.equal(buffer, before[name]) for name, buffer in one.named_buffers())
    for buffer in one.buffers():
        buffer *= 0.5
    assert torch.allclose(one.weight, weight, atol=1e-14)  # type: ignore[arg-type]


def test_autocast_does_not_reach_it() -> None:
    one = layer("convolution").float()
    with torch.autocast("cpu", torch.bfloat16):
        found = one.weight
    assert torch.equal(found, one.weight)  # type: ignore[arg-type]


def test_a_penalty_may_differentiate_it_twice() -> None:
    one = layer("linear")
    images = torch.randn(2, 40, dtype=torch.float64, requires_grad=True)

    def score(weight: Tensor) -> Tensor:
        return torch.tanh(images @ one.parametrizations.weight[0](weight).T)  # type: ignore[index, operator, union-attr]

    assert torch.autograd.gradgradcheck(score, one.parametrizations.weight.original)  # type: ignore[union-attr]


def test_every_layer_of_the_discriminator_is_normalised_and_copies_work() -> None:
    network = sngan.discriminator(32, 3, 4).double()
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 3 * 2 + 1 + 1  # table 3
    assert all(parametrize.is_parametrized(module, "weight") for module in layers)
    assert normalised(network) == pytest.approx([1.0] * len(layers), rel=0.03)
    twin, images = copy.deepcopy(network), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert torch.equal(twin(images), network(images))
    spectral.iterate(twin)
    assert not torch.equal(twin(images), network(images))


@pytest.mark.parametrize("size", [16, 64, 256])
def test_the_discriminator_at_every_size(size: int) -> None:
    assert sngan.discriminator(size, 1, 2)(torch.zeros(2, 1, size, size)).shape == (2,)


def test_it_follows_the_weights_over_updates_and_is_part_of_a_checkpoint() -> None:
    loop = make_loop("sngan", adam_discriminator={"lr": 2e-4, "beta1": 0.5, "beta2": 0.999})
    first = {name: value.clone() for name, value in loop.state.gan.named_buffers()}
    for _ in range(40):
        loop.step()
    norms = normalised(loop.state.gan.discriminator)  # type: ignore[arg-type]
    assert norms == pytest.approx([1.0] * len(norms), rel=0.25)  # with the first vectors only, one is 2.5 by now
    vectors = {name for name in first if name.endswith((".u", ".v"))}
    assert len(vectors) == 2 * len(norms)
    assert vectors <= loop.state.state_dict()["gan"].keys()
    still = {name for name, value in loop.state.gan.named_buffers() if torch.equal(value, first[name])}
    assert {len(first[name]) for name in vectors & still} == {1}  # u of the last layer, a single output


def test_the_vectors_follow_only_the_discriminators_updates() -> None:
    loop = make_loop("sngan")
    discriminator, generator = loop.state.gan.phases(Progress(0, 1))

    def vectors() -> list[torch.Tensor]:
        return [buffer.clone() for name, buffer in loop.state.gan.named_buffers() if name.endswith((".u", ".v"))]

    for phase, follows in ((generator, False), (discriminator, True)):
        before = vectors()
        assert before
        loop._update(phase, loop.fetch(0, 16), Progress(0, 1), seed=1, kept={})
        assert any(not torch.equal(*pair) for pair in zip(before, vectors(), strict=True)) == follows


def test_hinge_losses() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.25])
    assert adversarial.hinge_discriminator(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1.25) / 2)
    assert adversarial.hinge_generator(fake).item() == pytest.approx((3 - 0.25) / 2)
    real.requires_grad_()
    (gradient,) = torch.autograd.grad(adversarial.hinge_discriminator(real, fake), real)
    assert gradient.tolist() == pytest.approx([0, -1 / 3, -1 / 3])
    assert adversarial.hinge_generator(fake.bfloat16()).dtype == torch.float32


def test_a_network_without_weights_can_be_made() -> None:
    """As `ganpipe check` may do, to see what a GAN refuses."""
    with torch.device("meta"):
        network = sngan.discriminator(32, 1, 4)
    assert all(tensor.is_meta for tensor in [*network.parameters(), *network.buffers()])
