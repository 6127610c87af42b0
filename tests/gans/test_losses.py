"""Losses and penalties against their formulas, written down again with other means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from ganpipe.losses import adversarial, penalties

REAL, FAKE = np.array([1.5, -0.25, 3.0, 0.5]), np.array([-2.0, 0.75, 0.1, -0.6])


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


EXPECTED = {
    "discriminator_cross_entropy": -np.log(sigmoid(REAL)).mean() - np.log(1 - sigmoid(FAKE)).mean(),
    "wasserstein_critic": FAKE.mean() - REAL.mean(),
    "least_squares_discriminator": ((REAL - 1) ** 2).mean() + (FAKE**2).mean(),
    "relativistic_discriminator": -np.log(sigmoid(REAL - FAKE)).mean(),
}
EXPECTED_OF_GENERATOR = {
    "non_saturating": -np.log(sigmoid(FAKE)).mean(),
    "minimax_generator": np.log(1 - sigmoid(FAKE)).mean(),
    "wasserstein_generator": -FAKE.mean(),
    "least_squares_generator": ((FAKE - 1) ** 2).mean(),
    "boundary_seeking": ((np.log(sigmoid(FAKE)) - np.log(1 - sigmoid(FAKE))) ** 2).mean() / 2,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_a_discriminator_minimises(name: str) -> None:
    found = getattr(adversarial, name)(torch.from_numpy(REAL), torch.from_numpy(FAKE))
    assert found.item() == pytest.approx(EXPECTED[name], rel=1e-12)


@pytest.mark.parametrize("name", EXPECTED_OF_GENERATOR)
def test_what_a_generator_minimises(name: str) -> None:
    found = getattr(adversarial, name)(torch.from_numpy(FAKE))
    assert found.item() == pytest.approx(EXPECTED_OF_GENERATOR[name], rel=1e-12)


@pytest.mark.parametrize("name", [*EXPECTED, *EXPECTED_OF_GENERATOR])
def test_bf16_is_summed_in_float32(name: str) -> None:
    inputs = [torch.from_numpy(values).bfloat16() for values in ((REAL, FAKE) if name in EXPECTED else (FAKE,))]
    assert getattr(adversarial, name)(*inputs).dtype == torch.float32


def test_the_coding_of_least_squares() -> None:
    real, fake = torch.from_numpy(REAL), torch.from_numpy(FAKE)
    found = adversarial.least_squares_discriminator(real, fake, real_target=1, fake_target=-1)
    assert found.item() == pytest.approx(((REAL - 1) ** 2).mean() + ((FAKE + 1) ** 2).mean())
    assert adversarial.least_squares_generator(fake, target=0).item() == pytest.approx((FAKE**2).mean())


def test_pearsons_chi_squared_is_what_lsgan_minimises() -> None:
    """With b - c = 1 and b - a = 2, the generator's loss and the same on real data are half of chi^2(p + q || 2 q) at
    the discriminator's optimum (Mao 2016, eq. 5 to 7)."""
    p, q = np.array([0.1, 0.4, 0.5]), np.array([0.3, 0.3, 0.4])
    a, b, c = -1.0, 1.0, 0.0
    scores = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-16)

    def loss() -> Tensor:
        optimizer.zero_grad()
        real = sum(p_i * adversarial.least_squares_generator(scores[i], target=b) for i, p_i in enumerate(p))
        fake = sum(q_i * adversarial.least_squares_generator(scores[i], target=a) for i, q_i in enumerate(q))
        total: Tensor = real + fake  # type: ignore[assignment]
        total.backward()
        return total

    optimizer.step(loss)
    optimum = scores.detach().numpy()
    found = 0.5 * (p * (optimum - c) ** 2).sum() + 0.5 * (q * (optimum - c) ** 2).sum()
    assert found == pytest.approx(0.5 * ((2 * q - (p + q)) ** 2 / (p + q)).sum(), rel=1e-6)


def test_importance_weights_are_the_density_ratios() -> None:
    logits_NM, log_probabilities_NM = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    discriminator = sigmoid(logits_NM.numpy())
    ratios = discriminator / (1 - discriminator)
    weights = ratios / ratios.sum(1, keepdims=True)
    expected = -(weights * log_probabilities_NM.numpy()).sum(1).mean()
    logits_NM.requires_grad_()
    log_probabilities_NM.requires_grad_()
    found = adversarial.importance_weighted(logits_NM, log_probabilities_NM)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    found.backward()
    assert logits_NM.grad is None
    assert torch.allclose(log_probabilities_NM.grad, torch.from_numpy(-weights / 3))  # type: ignore[arg-type]


def test_importance_weights_find_the_distribution_of_the_data() -> None:
    """With a perfect discriminator between Bernoulli pixels, the generator ends at the data's probability."""
    wanted = 0.8
    logit = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([logit], lr=0.05)
    torch.manual_seed(0)
    for _ in range(400):
        chance = logit.sigmoid()
        drawn = (torch.rand(64, 20) < chance.detach()).float()
        own, data = (drawn * p + (1 - drawn) * (1 - p) for p in (chance, torch.tensor(wanted)))
        loss = adversarial.importance_weighted((data / own.detach()).log(), own.log())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert logit.sigmoid().item() == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize(("gap", "expected"), [(3.0, 0.0), (1.0, 0.0), (0.25, 0.75), (-2.0, 3.0)])
def test_the_margin_ends_at_its_distance(gap: float, expected: float) -> None:
    higher = torch.tensor([gap], requires_grad=True)
    loss = adversarial.margin_ranking(higher, torch.zeros(1), margin=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert higher.grad is not None
    assert higher.grad.item() == (-1.0 if expected > 0 else 0.0)


def test_the_penalty_of_a_quadratic_is_its_closed_form() -> None:
    """D(x) = x^T A x / 2 with a symmetric A has the gradient A x."""
    torch.manual_seed(0)
    root = torch.randn(12, 12, dtype=torch.float64)
    matrix = root @ root.T
    images = torch.randn(5, 3, 2, 2, dtype=torch.float64)

    def critic(images_NCHW: Tensor) -> Tensor:
        flat = images_NCHW.flatten(1)
        return 0.5 * ((flat @ matrix) * flat).sum(1)

    gradient = penalties.input_gradient(critic, images)
    expected = images.flatten(1) @ matrix
    images.requires_grad_()
    assert torch.equal(penalties.score_gradient(critic(images), images), gradient)
    images = images.detach()
    assert torch.allclose(gradient.flatten(1), expected)
    assert penalties.squared_gradient_norm(gradient).item() == pytest.approx(expected.square().sum(1).mean().item())


def test_a_gradient_penalty_is_zero_for_a_critic_of_slope_1() -> None:
    real, fake = torch.randn(4, 1, 3, 3), torch.randn(4, 1, 3, 3)
    direction = nn.functional.normalize(torch.ones(9), dim=0)
    mixing = torch.rand(4, 1, 1, 1)
    for slope, expected in ((1.0, 0.0), (3.0, 4.0)):
        gradient = lambda images, slope=slope: penalties.input_gradient(  # noqa: E731
            lambda x: slope * x.flatten(1) @ direction, images
        )
        found = penalties.gradient_penalty(gradient, real, fake, mixing)
        assert found.item() == pytest.approx(expected, abs=1e-5)


class Slopes(nn.Module):
    """A continuous function of a number, linear between knots; its parameters are its slopes."""

    def __init__(self, knots: Tensor) -> None:
        super().__init__()
        self.register_buffer("starts", knots[:-1])
        self.register_buffer("lengths", knots.diff())
        self.slopes = nn.Parameter(torch.zeros(len(knots) - 1, dtype=knots.dtype))

    def forward(self, x_N: Tensor) -> Tensor:
        within = torch.minimum((x_N[:, None] - self.starts).clamp(min=0), self.lengths)
        return within @ self.slopes


def test_a_clipped_critic_finds_the_wasserstein_distance() -> None:
    """In one dimension, with slopes that are clipped to [-1, 1], against SciPy's exact distance."""
    generator = np.random.default_rng(0)
    real, fake = generator.normal(0.5, 1.0, 400), generator.gamma(2.0, 0.7, 300) - 1.5
    knots = torch.from_numpy(np.sort(np.concatenate([real, fake])))
    critic = Slopes(knots)
    optimizer = torch.optim.RMSprop(critic.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss = adversarial.wasserstein_critic(critic(torch.from_numpy(real)), critic(torch.from_numpy(fake)))
        loss.backward()
        optimizer.step()
        penalties.clip_weights(critic, 1.0)
    assert -loss.item() == pytest.approx(wasserstein_distance(real, fake), rel=1e-3)


def test_clipping_leaves_what_is_within_the_limit() -> None:
    network = nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.005, -3.0]]))
        network.bias.fill_(math.inf)
    penalties.clip_weights(network, 0.01)
    assert network.weight.tolist() == [[pytest.approx(0.005), pytest.approx(-0.01)]]
    assert network.bias.tolist() == [pytest.approx(0.01)]
