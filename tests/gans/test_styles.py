"""StyleGAN's and StyleGAN2's layers, against what their equations say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from training_parts import make_loop

from ganpipe import gans
from ganpipe.gans.base import Batch, DataSpec, Progress
from ganpipe.gans.draws import SeededDraws
from ganpipe.gans.optimizers import Adam
from ganpipe.losses.penalties import path_lengths
from ganpipe.networks import styles
from ganpipe.networks.progan import EqualizedLinear
from ganpipe.networks.stylegan import AdaIn
from ganpipe.networks.stylegan2 import ModulatedConv2d

STYLED = ["stylegan", "stylegan2"]
RANDOM = torch.Generator().manual_seed(0)
LATE = Progress(900, 1000)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=RANDOM)


def gan_of(name: str) -> Any:
    """A GAN whose noise has a strength, in evaluation mode."""
    torch.manual_seed(0)
    gan = make_loop(name).state.gan.eval()
    for module in gan.modules():
        if isinstance(module, styles.Noise):
            torch.nn.init.normal_(module.strength_C11)
    return gan


def batch_of(*seeds: int, truncation: float = 1.0) -> Batch:
    return Batch(len(seeds), SeededDraws(seeds), dtype=torch.float64, truncation=truncation)


# --- layers


def test_adain_gives_each_map_the_mean_and_deviation_of_its_style() -> None:
    torch.manual_seed(0)
    layer, w = AdaIn(6, 4).double(), normal(3, 6)
    torch.nn.init.normal_(layer.affine.bias)
    scale, mean = layer.affine(w).chunk(2, dim=1)
    found = layer(5 * normal(3, 4, 16, 16) + 2, w)
    assert torch.allclose(found.mean((2, 3)), mean, rtol=0, atol=1e-9)
    assert torch.allclose(found.std((2, 3), correction=0), (1 + scale).abs(), rtol=1e-6)


@pytest.mark.parametrize("upsampled", [False, True])
def test_modulated_weights_have_norm_1_and_are_what_is_convolved(upsampled: bool) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv2d(6, 5, 7, 3, upsampled=upsampled).double()
    images, w = normal(3, 5, 8, 8), 4 * normal(3, 6)
    style = layer.style(w)
    assert style.std() > 1
    weights_NOIKK = layer.weight * layer.scale * style[:, None, :, None, None]  # equation 1
    weights_NOIKK = weights_NOIKK * layer.demodulation(style)[..., None, None, None]
    assert torch.allclose(weights_NOIKK.square().sum((2, 3, 4)), torch.ones((), dtype=torch.float64), rtol=1e-5)
    for found, image, weights in zip(layer(images, w), images, weights_NOIKK, strict=True):
        if layer.filter is None:
            expected = F.conv2d(image[None], weights, padding=1)[0]
        else:
            expected = layer.filter.upsampling_convolution(image[None], weights)[0]
        assert torch.allclose(found, expected, rtol=0, atol=1e-9)


def test_a_layer_of_the_image_is_modulated_only() -> None:
    layer = ModulatedConv2d(6, 5, 2, 1, demodulated=False).double()
    images, w = normal(3, 5, 4, 4), normal(3, 6)
    expected = torch.einsum("oi,ni,nihw->nohw", layer.weight[..., 0, 0] * layer.scale, layer.style(w), images)
    assert torch.allclose(layer(images, w), expected, rtol=0, atol=1e-12)


def test_a_layers_learning_rate_is_a_multiple_of_the_optimisers() -> None:
    """After a step of Adam, what the layer computes has moved by that multiple."""
    inputs, moved = normal(64, 8), []
    for rate in (1.0, 0.01):
        torch.manual_seed(0)
        layer = EqualizedLinear(8, 4, learning_rate=rate).double()
        optimizer = torch.optim.Adam(layer.parameters(), 1e-3, (0.0, 0.99), eps=1e-20)
        before = layer(inputs)
        (before.square().mean() + before.mean()).backward()
        optimizer.step()
        moved.append(before.detach() - layer(inputs).detach())
        assert before.detach().std() == pytest.approx(2**0.5, rel=0.3), "it is scaled as without it"
    assert torch.allclose(moved[1], 0.01 * moved[0], rtol=1e-6)


@pytest.mark.parametrize("name", STYLED)
def test_the_mapping_network_learns_a_hundredth_as_fast(name: str) -> None:
    gan = gan_of(name)
    assert {layer.learning_rate for layer in gan.generator.mapping.layers} == {0.01}
    others = {
        module.learning_rate
        for module in gan.modules()
        if isinstance(module, EqualizedLinear) and module not in set(gan.generator.mapping.layers)
    }
    assert others == {1.0}
    z = normal(5, 16)
    assert torch.allclose(gan.generator.mapping(z), gan.generator.mapping(3 * z), rtol=1e-6), "z is normalised"


@pytest.mark.parametrize("name", STYLED)
def test_in_bf16_losses_are_about_those_of_float32(name: str) -> None:
    """Both differentiate twice, under autocast."""
    found = []
    for precision in ("fp32", "bf16"):
        loop = make_loop(name, settings={"precision": precision, "num_images": 64})
        loop.state.progress = Progress(48, 64)  # the last level of what grows
        found.append({key: value.item() for key, value in loop.step().items()})
    assert found[1] == pytest.approx(found[0], rel=0.1, abs=0.02)


# --- styles


def test_layers_from_the_crossover_on_take_the_second_style() -> None:
    first, second = torch.zeros(4, 3, 2), torch.ones(4, 3, 2)
    found = styles.mixed(first, second, torch.tensor([0, 1, 2, 3]))
    assert found[..., 0].tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert torch.equal(found[..., 0], found[..., 1])


@pytest.mark.parametrize("name", STYLED)
def test_the_share_of_mixed_images_and_their_crossovers(name: str) -> None:
    gan, num_layers = gan_of(name), 6
    w_NLD = gan.mixed_styles(batch_of(*range(400)), num_layers)
    changes_NL = (w_NLD[:, 1:] != w_NLD[:, :-1]).any(2)
    assert changes_NL.sum(1).max() == 1
    assert changes_NL.any(1).double().mean() == pytest.approx(gan.config.mixing, abs=0.05)
    shares = changes_NL.double().sum(0) / changes_NL.sum()
    assert torch.allclose(shares, torch.full_like(shares, 1 / 5), rtol=0, atol=0.08)


@pytest.mark.parametrize("name", STYLED)
def test_truncation_acts_in_w(name: str) -> None:
    gan = gan_of(name)
    mean, full, half = (
        gan.mean_style(batch_of(0)),
        gan.styles(batch_of(1, 2)),
        gan.styles(batch_of(1, 2, truncation=0.5)),
    )
    assert torch.allclose(half, (mean + full) / 2, rtol=0, atol=1e-12)
    many = gan.styles(batch_of(*range(2000)))[:, 0]
    assert (many.mean(0) - mean).norm() < 0.1 * many.std(0).norm(), "the mean is that of fresh latents, too"
    assert torch.equal(full[:, 0], full[:, -1])


@pytest.mark.parametrize("name", STYLED)
def test_an_image_is_a_function_of_its_seed_alone(name: str) -> None:
    gan = gan_of(name)
    with torch.inference_mode():
        together = gan.sample(batch_of(5, 6, 7), LATE)
        alone = torch.cat([gan.sample(batch_of(seed), LATE) for seed in (5, 6, 7)])
    assert torch.allclose(together, alone, rtol=0, atol=1e-9)
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", STYLED)
def test_the_noise_is_the_samples_own_and_what_stays_is_the_style(name: str) -> None:
    """What `ganpipe explore` builds on: styles of one seed in a batch of another."""
    gan = gan_of(name)
    w = gan.styles(batch_of(5))
    first, again, other = (gan.synthesise(w, batch_of(seed), LATE) for seed in (8, 8, 9))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-3
    exchanged = w.clone()
    exchanged[:, 3:] = gan.styles(batch_of(6))[:, 3:]
    assert (gan.synthesise(exchanged, batch_of(8), LATE) - first).abs().max() > 1e-3


@pytest.mark.parametrize("name", STYLED)
@pytest.mark.parametrize("size", [16, 64])
def test_each_layer_has_a_style_and_images_have_the_datasets_shape(name: str, size: int) -> None:
    gan_class = gans.load(name)
    small = {"generator_width": 2, "discriminator_width": 2, "num_latents": 4, "mapping_layers": 1}
    gan: Any = gan_class(gan_class.Config.model_validate(small), DataSpec.images(size, 3))
    batch = Batch(2, SeededDraws([0, 1]))
    w_NLD = gan.styles(batch).detach().requires_grad_()
    images = gan.synthesise(w_NLD, batch, LATE)
    assert images.shape == (2, 3, size, size)
    (gradient_NLD,) = torch.autograd.grad(images.square().sum(), w_NLD)
    assert (gradient_NLD.abs().amax((0, 2)) > 0).all(), "a style that no layer takes"


# --- path lengths


def test_a_path_length_is_the_norm_of_the_gradient_that_finite_differences_find() -> None:
    gan = gan_of("stylegan2")
    batch = batch_of(3, 4)
    w = gan.styles(batch).detach().clone().requires_grad_()
    noise = [batch.draws.normal(*shape).double() for shape in gan.generator.noise_shapes]
    images = gan.generator(w, noise)
    y = normal(*images.shape)
    lengths = path_lengths(images, w, y)

    def projected(w_NLD: Tensor) -> Tensor:
        with torch.no_grad():
            product: Tensor = (gan.generator(w_NLD, noise) * y).sum((1, 2, 3)) / 16
        return product

    gradients, width = torch.zeros_like(w), 1e-7  # few of LeakyReLU's kinks lie in between
    for layer in range(w.shape[1]):
        for unit in range(w.shape[2]):
            step = torch.zeros_like(w)
            step[:, layer, unit] = width
            gradients[:, layer, unit] = (projected(w + step) - projected(w - step)) / (2 * width)
    expected = (gradients.square().sum(2).mean(1)).sqrt()
    assert torch.allclose(lengths, expected, rtol=1e-5)

    # It is to be minimised: along a direction in the weights, it changes as its gradient says.
    weight = gan.generator.layers[1].convolution.weight
    direction = normal(*weight.shape)
    (slope,) = torch.autograd.grad(lengths.sum(), weight)

    def shifted(by: float) -> Tensor:
        with torch.no_grad():
            weight.add_(by * direction)
        found = path_lengths(gan.generator(w, noise), w, y).sum().detach()
        with torch.no_grad():
            weight.sub_(by * direction)
        return found

    difference = (shifted(1e-7) - shifted(-1e-7)) / 2e-7
    assert torch.allclose((slope * direction).sum(), difference, rtol=1e-5)


def test_path_lengths_of_a_linear_generator() -> None:
    matrix, w = normal(12, 5), normal(3, 1, 5).requires_grad_()
    images = (w[:, 0] @ matrix.T).reshape(3, 3, 2, 2)
    y = normal(3, 3, 2, 2)
    expected = (y.flatten(1) @ matrix).norm(dim=1) / 2
    assert torch.allclose(path_lengths(images, w, y), expected, rtol=1e-12)


def test_the_mean_path_length_follows_what_was_observed_in_lazy_steps_only() -> None:
    loop, seen = make_loop("stylegan2"), []
    gan: Any = loop.state.gan
    for step in range(9):
        metrics = loop.step()
        assert ("generator_path" in metrics) == (step % 4 == 0)
        assert ("discriminator_r1" in metrics) == (step % gan.config.r1_every == 0)
        if "path_length" in metrics:
            seen.append(metrics["path_length"].item())
        assert gan.path_mean.item() == pytest.approx(sum(seen) / len(seen), rel=1e-6)
    assert len(seen) == 3
    gan.adapt({"path_length": torch.tensor(5.0)}, Progress(0, 1, step=40_000))
    assert gan.path_mean.item() == pytest.approx(0.99 * sum(seen) / 3 + 0.01 * 5, rel=1e-6)
    gan.adapt({"score_real": torch.tensor(1.0)}, Progress(0, 1, step=40_001))
    assert "path_mean" in loop.state.state_dict()["gan"]


def test_adam_is_corrected_for_lazy_regularisation() -> None:
    """Four updates and one of the paths' lengths forget as much as four alone would."""
    loop = make_loop("stylegan2")
    config: Any = loop.state.gan.config
    own = Adam(lr=1e-2, beta1=0.0, beta2=0.99)
    for player, every in (("discriminator", config.r1_every), ("generator", config.path_every)):
        found = loop.state.players[player].optimizer
        assert isinstance(found, Adam)
        assert found.lr * (every + 1) == pytest.approx(own.lr * every)
        assert found.beta2 ** (every + 1) == pytest.approx(own.beta2**every)
        assert found.beta1 == 0


def test_a_regularisation_without_weight_has_no_phase_and_corrects_nothing() -> None:
    data = DataSpec.images(16, 1)
    gan_class = gans.load("stylegan2")
    gan = gan_class(gan_class.Config(generator_width=2, discriminator_width=2, path_weight=0.0, r1_gamma=0.0), data)
    assert [phase.every for phase in gan.phases(LATE)] == [1, 1]
    for player in gan.players().values():
        assert isinstance(player.optimizer, Adam)
        assert player.optimizer.lr == 1e-2
