"""The parts of SAGAN and BigGAN, each by its equation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from training_parts import blobs, make_loop

from ganpipe import gans
from ganpipe.gans.base import Batch, DataSpec, Gan, Progress
from ganpipe.gans.draws import BatchDraws, SeededDraws, truncated_normal
from ganpipe.losses.penalties import orthogonality
from ganpipe.networks import conditional_resnet as networks

BOTH = ("sagan", "biggan")
RANDOM = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=RANDOM)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_attention_is_that_of_the_paper() -> None:
    attention, hidden = networks.SelfAttention(16).double(), normal(2, 16, 3, 5)
    assert torch.equal(attention(hidden), hidden), "gamma is 0 at first"
    nn.init.constant_(attention.gamma, 0.7)
    weights = [getattr(attention, name).weight.detach().numpy()[:, :, 0, 0] for name in ("keys", "queries", "values")]
    w_v = attention.output.weight.detach().numpy()[:, :, 0, 0]
    assert [matrix.shape for matrix in weights] == [(2, 16)] * 3  # an eighth of the maps
    found = attention(hidden).detach().numpy()
    for x, beta, output in zip(hidden.numpy(), attention.weights(hidden).detach().numpy(), found, strict=True):
        x_MP = x.reshape(16, -1)
        f, g, h = (matrix @ x_MP for matrix in weights)
        s = f.T @ g  # s_ij
        expected = np.exp(s) / np.exp(s).sum(0)  # beta_ji, over i
        assert np.allclose(beta, expected.T)
        assert np.allclose(beta.sum(1), 1)
        assert np.allclose(output.reshape(16, -1), x_MP + 0.7 * w_v @ (h @ expected))


@pytest.mark.parametrize(("image_size", "size"), [(16, 8), (32, 16), (64, 16), (128, 32), (256, 32)])
def test_attention_is_midway(image_size: int, size: int) -> None:
    assert networks.attention_size(image_size) == size
    seen: list[int] = []
    generator = networks.Generator(4, image_size, 3, 1, lambda maps: nn.Linear(2, maps, bias=False))
    discriminator = networks.ProjectionDiscriminator(3, image_size, 3, 1)
    for network in (generator, discriminator):
        network.attention.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]))
    images = generator(torch.randn(2, 4), [torch.randn(2, 2)] * len(generator.blocks))
    assert images.shape == (2, 3, image_size, image_size)
    assert images.abs().max() <= 1
    assert discriminator(images, torch.tensor([0, 2])).shape == (2,)
    assert seen == [size, size]


def test_conditional_batch_norm_gives_each_class_its_mean_and_deviation() -> None:
    norm = networks.ConditionalBatchNorm(3, lambda maps: nn.Embedding(2, maps)).double()
    hidden, label = normal(8, 3, 4, 4) * 5 + 7, torch.arange(8) % 2
    expected = nn.BatchNorm2d(3, affine=False).double()(hidden)
    found = norm(hidden, label)
    for k in (0, 1):
        gain, bias = 1 + norm.gain.weight[k], norm.bias.weight[k]  # type: ignore[index]
        assert torch.allclose(found[label == k], expected[label == k] * gain[:, None, None] + bias[:, None, None])
    nn.init.zeros_(norm.gain.weight)  # type: ignore[arg-type]
    nn.init.zeros_(norm.bias.weight)  # type: ignore[arg-type]
    found = norm(hidden, label)
    assert torch.allclose(found.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(found.std((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64), atol=1e-5)


def test_the_score_is_psi_and_a_projection() -> None:
    network, images, label = (
        networks.ProjectionDiscriminator(5, 16, 1, 4).double(),
        normal(3, 1, 16, 16),
        torch.arange(3),
    )
    features = network.features(images)
    psi = features @ network.score.weight[0] + network.score.bias
    inner = [torch.dot(network.embedding.weight[k], features[k]) for k in range(3)]
    assert torch.allclose(network(images, label), psi + torch.stack(inner))
    other = network(images, torch.full((3,), 4))
    assert torch.allclose(other - network(images, label), features @ network.embedding.weight[4] - torch.stack(inner))


@pytest.mark.parametrize("name", BOTH)
def test_what_is_normalised_and_that_updates_keep_it_so(name: str) -> None:
    loop = make_loop(name)
    gan = loop.state.gan
    free = {id(module) for module in gan.modules() if isinstance(module, nn.Embedding)} - {
        id(gan.discriminator.embedding)
    }  # type: ignore[union-attr, arg-type]
    layers = [m for m in gan.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding) and id(m) not in free]
    assert all(parametrize.is_parametrized(module, "weight") for module in layers)
    assert {phase.player for phase in gan.phases(Progress(0, 1)) if phase.after_update} == {
        "generator",
        "discriminator",
    }
    for _ in range(10):
        loop.step()
    norms = [torch.linalg.matrix_norm(module.weight.detach().flatten(1), 2).item() for module in layers]  # type: ignore[operator, union-attr]
    assert norms == pytest.approx([1.0] * len(norms), abs=0.3)


def test_orthogonal_weights_cost_nothing_and_others_what_equation_3_says() -> None:
    orthogonal = torch.nn.init.orthogonal_(torch.empty(6, 4, 3, 3, dtype=torch.float64))
    lengths = torch.arange(1, 7, dtype=torch.float64)[:, None, None, None]
    assert orthogonality([orthogonal, orthogonal * lengths]).item() == pytest.approx(0, abs=1e-20)
    weights = [normal(5, 2, 3, 3), normal(7, 4)]
    expected = 0.0
    for weight in weights:
        rows = weight.flatten(1).numpy()
        expected += float(np.square((rows @ rows.T) * (1 - np.eye(len(rows)))).sum())
    assert orthogonality(weights).item() == pytest.approx(expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert orthogonality([w.float() for w in weights]).item() == pytest.approx(expected, rel=1e-5)


def test_the_generators_penalty_leaves_out_the_class_embedding() -> None:
    gan = make_loop("biggan", orthogonality_weight=2.0).state.gan
    fields = blobs(4)
    batch = Batch(4, BatchDraws(0, 4, 0, 4), fields, dtype=torch.float64)
    loss = gan.generator_losses(batch, Progress(0, 1))["orthogonality"]  # type: ignore[operator]
    matrices = [p for n, p in gan.generator.named_parameters() if n.endswith("weight.original")]  # type: ignore[union-attr]
    assert loss.item() == pytest.approx(2 * orthogonality(matrices).item(), abs=1e-9)
    moved = torch.autograd.grad(loss, [*matrices, gan.embedding.weight], allow_unused=True)  # type: ignore[union-attr]
    assert moved[-1] is None
    assert all(gradient is not None for gradient in moved[:-1])


@pytest.mark.parametrize("threshold", [0.2, 1.0, 1.8])
def test_truncation_has_the_distribution_of_drawing_again(threshold: float) -> None:
    drawn = normal(100_000)
    found = truncated_normal(drawn, threshold)
    truncated = scipy.stats.truncnorm(-threshold, threshold)
    cumulative = scipy.stats.norm.cdf(drawn.numpy())
    assert np.allclose(found.numpy(), truncated.ppf(cumulative), atol=1e-9)  # the inverse distribution function
    assert found.abs().max() <= threshold
    assert found.std().item() == pytest.approx(truncated.std(), rel=0.02)
    assert torch.equal(found.argsort(), drawn.argsort()), "monotone in what was drawn"
    assert truncated_normal(drawn.float(), threshold).dtype == torch.float32


def test_no_number_is_lost_far_out() -> None:
    assert truncated_normal(torch.tensor([-30.0, 0.0, 30.0]), 1.5).tolist() == pytest.approx([-1.5, 0, 1.5])


def test_biggan_truncates_at_twice_the_truncation_and_not_at_one() -> None:
    gan = make_loop("biggan").state.gan

    def latents(truncation: float) -> Tensor:
        batch = Batch(64, SeededDraws(range(64)), dtype=torch.float64, truncation=truncation)
        found: Tensor = gan.latents(batch)  # type: ignore[operator]
        return found

    assert torch.equal(
        latents(1.0), Batch(64, SeededDraws(range(64)), dtype=torch.float64).latent(latents(1.0).shape[1])
    )
    assert latents(1.0).abs().max() > 2
    assert 0.99 < latents(0.5).abs().max() <= 1.0


def sample(gan: Gan, batch: Batch) -> Tensor:
    with torch.no_grad():
        return gan.sample(batch, Progress(0, 1))


def test_biggans_latents_reach_every_block_by_themselves() -> None:
    gan = make_loop("biggan").state.gan.eval()
    fields = blobs(4)
    batch = Batch(4, BatchDraws(0, 4, 0, 4), fields, dtype=torch.float64)
    images = sample(gan, batch)
    per_layer = gan.config.num_latents_per_layer  # type: ignore[attr-defined]

    class Changed(BatchDraws):
        """With another number among the latents of one layer."""

        layer = 0

        def normal(self, *shape: int) -> Tensor:
            drawn = super().normal(*shape).clone()
            drawn[:, self.layer * per_layer] += 3
            return drawn

    for layer in range(1 + len(gan.generator.blocks)):  # type: ignore[arg-type, union-attr]
        draws = Changed(0, 4, 0, 4)
        draws.layer = layer
        assert not torch.allclose(sample(gan, dataclasses.replace(batch, draws=draws)), images), layer


def test_sagan_begins_with_the_same_norms_for_all_classes_and_learns_to_tell_them_apart() -> None:
    loop = make_loop("sagan")
    gan, fields = loop.state.gan, blobs(4)
    other = {**fields, "label": 1 - fields["label"]}

    def difference() -> float:
        gan.eval()
        first, second = (
            sample(gan, Batch(4, BatchDraws(0, 4, 0, 4), found, dtype=torch.float64)) for found in (fields, other)
        )
        gan.train()
        return float((first - second).abs().max())

    assert difference() == 0
    loop.step()
    loop.step()
    assert difference() > 0


@pytest.mark.parametrize("name", BOTH)
def test_they_train_in_bf16_with_finite_losses(name: str) -> None:
    loop = make_loop(name, settings={"precision": "bf16"})
    for _ in range(3):
        metrics = loop.step()
    assert all(math.isfinite(float(value)) for value in metrics.values())


@pytest.mark.parametrize("name", BOTH)
def test_an_image_size_that_they_cannot_do_is_an_error(name: str) -> None:
    gan = gans.load(name)
    with pytest.raises(Exception, match=f"data.image_size: got 28; {name} needs a power of two from 16 to 256"):
        gan.check(gan.Config(), DataSpec.images(28, 1, 10))


def test_first_weights_keep_their_size_under_the_norm() -> None:
    generator = networks.Generator(8, 32, 1, 4, lambda maps: nn.Linear(4, maps, bias=False))
    lists = [module for module in generator.modules() if isinstance(module, parametrize.ParametrizationList)]
    assert len(lists) == 1 + 3 * 3 + 3 * 4 + 4 + 1  # first layer, convolutions, gains and biases, attention, last layer
    assert all(torch.allclose(one(), one.original, atol=1e-5) for one in lists)


def test_biggans_discriminator_moves_more_often_on_fresh_images() -> None:
    loop = make_loop("biggan", num_discriminator_updates=2)
    seen: list[int] = []
    inner = loop.fetch
    loop.fetch = lambda start, stop: seen.append(start) or inner(start, stop)  # type: ignore[func-returns-value]
    loop.step()
    assert seen == [0, 16]
    assert {name: player.averaged for name, player in loop.state.players.items()} == {
        "generator": True,
        "discriminator": False,
    }
    assert {"generator.first.bias", "embedding.weight"} <= loop.state.generator_state().keys()
