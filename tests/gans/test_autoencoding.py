"""The losses of GANs with an encoder against their formulas, and how their phases share what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from training_parts import largest_difference, make_loop, packaged, weights_of

from ganpipe import gans
from ganpipe.errors import GanpipeError
from ganpipe.evaluation.sampling import reconstruct_images
from ganpipe.gans.autoencoding import AutoEncodingGan
from ganpipe.gans.base import Batch, DataSpec, Losses, Progress
from ganpipe.gans.draws import BatchDraws
from ganpipe.losses.variational import log_ratio, standard_normal_divergence, unit_gaussian_likelihood
from ganpipe.networks.autoencoder import AutoEncoder, FeatureDiscriminator, encoder
from ganpipe.registry.open_model import load

RANDOM = np.random.default_rng(0)
PROGRESS = Progress(0, 1)
NAMES = [name for name in gans.names() if issubclass(gans.load(name), AutoEncodingGan)]
every_one = pytest.mark.parametrize("name", NAMES)


def normal(*shape: int) -> Tensor:
    return torch.from_numpy(RANDOM.normal(size=shape))


# -- losses


def test_the_prior_against_torch() -> None:
    mean, log_variance = normal(5, 3), normal(5, 3)
    standard = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), standard).sum(1).mean()
    assert standard_normal_divergence(mean, log_variance).item() == pytest.approx(expected.item())
    assert standard_normal_divergence(torch.zeros(2, 3), torch.zeros(2, 3)).item() == 0


def test_the_likelihood_of_features_against_numpy_and_torch() -> None:
    wanted, found = normal(4, 2, 3, 3), normal(4, 2, 3, 3)
    squares = np.square((wanted - found).numpy()).reshape(4, -1).sum(1)
    assert unit_gaussian_likelihood(wanted, found).item() == pytest.approx(0.5 * squares.mean())
    logs = -Normal(found, torch.ones_like(found)).log_prob(wanted).flatten(1).sum(1).mean()
    constant = 0.5 * 18 * np.log(2 * np.pi)
    assert unit_gaussian_likelihood(wanted, found).item() == pytest.approx(logs.item() - constant)


def test_the_log_ratio_is_that_of_the_probabilities() -> None:
    logits = normal(7)
    real = torch.sigmoid(logits)
    assert log_ratio(logits).item() == pytest.approx((-real.log() + (1 - real).log()).mean().item())


# -- networks


def test_the_feature_discriminator_shows_normalised_maps_at_a_quarter_of_the_size() -> None:
    for size in (16, 32, 64):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = FeatureDiscriminator(size, 3, 4)
        maps, logits = network(torch.rand(8, 3, size, size))
        assert maps.shape == (8, 8, size // 4, size // 4)
        assert logits.shape == (8,)
        before = torch.where(maps > 0, maps, maps / 0.2)  # its activation undone
        assert torch.allclose(before.var((0, 2, 3)), torch.ones(8), atol=0.1)


def test_encoders_at_every_size() -> None:
    for size in (16, 64, 256):
        images = torch.rand(1, 3, size, size)  # one image: a micro-batch may be so small
        assert encoder(size, 3, 2, 5)(images).shape == (1, 5)
        reconstructed, codes = AutoEncoder(size, 3, 2, 5)(images)
        assert reconstructed.shape == images.shape
        assert codes.shape == (1, 5)


# -- what the players minimise


def batch_of(gan: Any, images: Tensor) -> Batch:
    return Batch(len(images), BatchDraws(1, len(images), 0, len(images)), {"image": images}, dtype=torch.float64)


def prepared(name: str, **config: Any) -> tuple[Any, Tensor]:
    """A GAN in evaluation mode that has learned a little, and images."""
    loop = make_loop(name, **config)
    for _ in range(3):
        loop.step()
    return loop.state.gan.eval(), loop.fetch(0, 6)["image"]


def total(losses: Losses) -> float:
    return float(sum(value.item() for value in losses.values()))


def test_vaegan_minimises_what_algorithm_1_says() -> None:
    gan, x = prepared("vaegan", likelihood_weight=0.25)
    num_latents = gan.config.num_latents
    noise, prior = BatchDraws(1, 6, 0, 6).normal(2 * num_latents).double().split(num_latents, dim=1)
    mean, log_variance = gan.encoder(x).split(num_latents, dim=1)
    reconstructed, sampled = gan.generator(mean + torch.exp(log_variance / 2) * noise), gan.generator(prior)
    (real_maps, real), (maps, of_reconstructed) = gan.discriminator(x), gan.discriminator(reconstructed)
    probabilities = [torch.sigmoid(value) for value in (real, of_reconstructed, gan.discriminator(sampled)[1])]
    on_real, on_reconstructed, on_sampled = probabilities
    likelihood = 0.5 * (real_maps - maps).square().flatten(1).sum(1).mean()
    divergence = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1).mean()
    expected = {
        "discriminator": -(on_real.log() + (1 - on_reconstructed).log() + (1 - on_sampled).log()).mean(),
        "generator": 0.25 * likelihood - (on_reconstructed.log() + on_sampled.log()).mean(),
        "encoder": divergence + likelihood,
    }
    for phase in gan.phases(PROGRESS):
        found = phase.losses(batch_of(gan, x), PROGRESS)
        assert total(found) == pytest.approx(expected[phase.player].item(), rel=1e-6), phase.player
    assert torch.equal(gan.reconstruct(batch_of(gan, x), PROGRESS), gan.generator(mean))


def test_alphagan_minimises_what_algorithm_1_says() -> None:
    gan, x = prepared("alphagan", reconstruction_weight=3.0)
    prior = BatchDraws(1, 6, 0, 6).normal(gan.config.num_latents).double()
    codes = gan.encoder(x)
    reconstructed, sampled = gan.generator(codes), gan.generator(prior)
    on_real, on_reconstructed, on_sampled = (gan.discriminator(i).sigmoid() for i in (x, reconstructed, sampled))
    of_codes, of_prior = gan.code_discriminator(codes).sigmoid(), gan.code_discriminator(prior).sigmoid()
    distance = 3 * (x - reconstructed).abs().mean()

    def ratio(probability: Tensor) -> Tensor:
        return (-probability.log() + (1 - probability).log()).mean()

    expected = {
        "discriminator": -(2 * on_real.log() + (1 - on_reconstructed).log() + (1 - on_sampled).log()).mean(),
        "code_discriminator": -((1 - of_codes).log() + of_prior.log()).mean(),
        "generator": distance + ratio(on_reconstructed) + ratio(on_sampled),
        "encoder": distance + ratio(of_codes),
    }
    for phase in gan.phases(PROGRESS):
        found = phase.losses(batch_of(gan, x), PROGRESS)
        assert total(found) == pytest.approx(expected[phase.player].item(), rel=1e-6), phase.player
    assert torch.equal(gan.reconstruct(batch_of(gan, x), PROGRESS), reconstructed)


@every_one
def test_what_phases_share_is_what_each_would_compute(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that keeps nothing from phase to phase ends at the same weights."""
    sharing, alone = make_loop(name), make_loop(name)
    for loop in (sharing, alone):
        loop.state.gan.eval()  # batch norm's statistics would see some images twice
    sharing.step()
    with monkeypatch.context() as patched:
        patched.setattr(Batch, "once", lambda batch, name, compute: compute())
        alone.step()
    assert largest_difference(weights_of(sharing), weights_of(alone)) < 1e-12


@every_one
def test_a_package_reconstructs_as_the_training_does(name: str, tmp_path: Path) -> None:
    loop = make_loop(name, settings={"precision": "fp32"})
    loop.step()
    fields = {"image": loop.fetch(0, 5)["image"]}
    opened = load("a package", packaged(loop, tmp_path)).gan
    with loop.state.averaged() as gan:
        expected = reconstruct_images(gan, loop.state.progress, fields).astype(int)
    found = reconstruct_images(opened, loop.state.progress, fields, batch_size=2).astype(int)
    assert expected.shape == (5, 1, 16, 16)
    assert np.abs(found - expected).max() <= 1  # another memory layout sums in another order


@every_one
def test_an_image_size_that_it_cannot_do_is_an_error(name: str) -> None:
    gan = gans.load(name)
    with pytest.raises(GanpipeError, match=f"got 24; {name} needs a power of two"):
        gan.check(gan.Config(), DataSpec.images(24, 1))


def test_a_gan_without_an_encoder_says_so() -> None:
    gan = make_loop("gan").state.gan
    assert not gan.reconstructs
    with pytest.raises(GanpipeError, match="OriginalGan has no encoder"):
        gan.reconstruct(batch_of(gan, torch.zeros(1, 1, 16, 16)), PROGRESS)
