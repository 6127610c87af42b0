"""What every GAN must do: whoever adds a file to ganpipe/gans/ is tested here without writing a test."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from training_parts import case_of, given_to, largest_difference, make_loop, packaged, weights_of

from ganpipe import gans
from ganpipe.data.loading.order import share
from ganpipe.evaluation.given import field_reader, read_rows
from ganpipe.evaluation.sampling import sample_images
from ganpipe.gans.base import Batch, DataSpec, Progress
from ganpipe.gans.draws import BatchDraws, seed_networks
from ganpipe.gans.optimizers import Adam
from ganpipe.gans.spec import is_view
from ganpipe.packaging.served_model import Generator, package_files
from ganpipe.training.loop import Loop

QUICK = {"precision": "fp32", "batch_size": 32, "ema_half_life": 500}
every_gan = pytest.mark.parametrize("name", gans.names())


def has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(child, nn.modules.batchnorm._BatchNorm) for child in module.modules())


def has_dropout(module: nn.Module) -> bool:
    return any(isinstance(child, nn.Dropout) and child.p > 0 for child in module.modules())


def distance_from_data(images_NCHW: np.ndarray, real: np.ndarray) -> float:
    """How far a sample is from the nearest real image, as mean squared difference of pixels, averaged over samples.

    It asks whether samples look like data, not whether they cover it: the original GAN may well forget a class.
    """
    fake = images_NCHW.reshape(len(images_NCHW), -1).astype(np.float64)
    return float(np.mean([np.square(real - sample).mean(1).min() for sample in fake]))


@every_gan
def test_players_are_those_of_the_settings_and_share_no_parameter(name: str) -> None:
    loop = make_loop(name)
    players = loop.state.players
    assert sorted(players) == sorted(loop.state.gan.config.players)  # type: ignore[attr-defined]
    owned = [id(parameter) for player in players.values() for parameter in player.parameters()]
    assert len(owned) == len(set(owned)) > 0
    assert {id(parameter) for parameter in loop.state.gan.parameters()} == set(owned), "a parameter nobody trains"
    assert any(player.averaged for player in players.values())


@every_gan
def test_an_average_begins_with_its_player(name: str) -> None:
    """Else it would hold weights that the player had before it learned."""
    state = make_loop(name).state
    for player, about in state.players.items():
        shares = [
            share for share in range(100) if any(p.player == player for p in state.gan.phases(Progress(share, 100)))
        ]
        assert min(shares) == about.begins * 100 or not about.averaged


@every_gan
def test_an_update_moves_its_player_and_nobody_else(name: str) -> None:
    loop = make_loop(name)
    for progress in (Progress(0, 1000), Progress(900, 1000)):
        for phase in loop.state.gan.phases(progress):
            before = weights_of(loop)
            loop._update(phase, loop.fetch(0, 16), progress, seed=1, kept={})
            moved = {key for key, value in weights_of(loop).items() if not torch.equal(value, before[key])}
            own = {id(p) for p in loop.state.players[phase.player].parameters()}
            own_names = {key for key, p in loop.state.gan.named_parameters() if id(p) in own}
            assert moved, f"{phase.player} did not move"
            assert moved <= own_names, f"{phase.player}'s turn moved others' weights"


@every_gan
def test_losses_are_means_over_the_batch(name: str) -> None:
    """A batch of the same image twice has the loss of the image once, for GANs whose samples do not see each other."""
    loop = make_loop(name)
    gan = loop.state.gan.eval()  # eval: no dropout, and batch norm by running statistics
    gan.pools = {}  # what they give away depends on what was there before
    fields = loop.fetch(0, 8)

    class Halves(BatchDraws):
        """The numbers of rows [0, 4) for both halves."""

        def normal(self, *shape: int) -> torch.Tensor:
            return super().normal(*shape)[:4].repeat(2, *[1] * len(shape))

        def uniform(self, *shape: int) -> torch.Tensor:
            return super().uniform(*shape)[:4].repeat(2, *[1] * len(shape))

        def integers(self, high: int) -> torch.Tensor:
            return super().integers(high)[:4].repeat(2)

    once = {key: value[:4] for key, value in fields.items()}
    twice = {key: torch.cat([value[:4], value[:4]]) for key, value in fields.items()}
    if case_of(name).sees_the_batch:
        return
    for progress in (Progress(0, 1000), Progress(900, 1000)):
        for phase in gan.phases(progress):
            single = phase.losses(Batch(4, BatchDraws(5, 8, 0, 4), once, dtype=torch.float64), progress)
            double = phase.losses(Batch(8, Halves(5, 8, 0, 8), twice, dtype=torch.float64), progress)
            for key in single:
                digits = 1e-9 if single[key].dtype == torch.float64 else 1e-6  # a loss may say `.float()`
                assert double[key].item() == pytest.approx(single[key].item(), rel=digits), key


@every_gan
def test_micro_batches_give_the_update_of_the_whole_batch(name: str) -> None:
    whole, cut = make_loop(name), make_loop(name, settings={"micro_batch_size": 5})
    if case_of(name).sees_the_batch:
        return
    if has_batch_norm(whole.state.gan) or has_dropout(whole.state.gan):
        # Statistics and masks are those of a micro-batch; what must still agree is which real images are seen.
        whole.state.gan.eval()
        cut.state.gan.eval()
    for _ in range(3):
        whole.step()
        cut.step()
    assert largest_difference(weights_of(whole), weights_of(cut)) < 1e-9


@every_gan
def test_going_on_from_a_checkpoint_is_as_if_nothing_had_happened(name: str, tmp_path: Path) -> None:
    straight = make_loop(name)
    for _ in range(6):
        straight.step()
    stopped = make_loop(name)
    for _ in range(3):
        stopped.step()
    torch.save(stopped.state.state_dict(), tmp_path / "checkpoint.pt")
    resumed = make_loop(name)
    resumed.state.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    for _ in range(3):
        resumed.step()
    assert resumed.state.progress == straight.state.progress
    assert largest_difference(weights_of(resumed), weights_of(straight)) == 0
    averages, expected = resumed.state.ema.averages, straight.state.ema.averages
    assert all(torch.equal(averages[key], expected[key]) for key in expected)


class Trained(NamedTuple):
    """A short training, and distances from the data: of its samples before and after, of the data's mean image."""

    loop: Loop
    before: float
    after: float
    of_the_mean: float


@cache
def trained(name: str) -> Trained:
    """A short training.

    At twice the GAN's own learning rates, because the whole table may take some 10 s for each GAN.
    """
    case = case_of(name)
    own = gans.load(name).Config.model_validate(case.config)
    faster = own.with_optimizers({player: {"lr": 2 * own.optimizer_of(player).lr} for player in own.players})
    loop = make_loop(name, settings={**QUICK, "num_images": 32 * case.num_batches}, **faster.model_dump())
    gan = loop.state.gan
    rows = field_reader(gan, case.dataset(512), np.arange(512), 0, gan.fields[:1])  # type: ignore[arg-type]
    real = ((read_rows(rows, 0, 512)[gan.fields[0]].numpy() + 1) * 127.5).reshape(512, -1)
    given = given_to(gan, name, 128)

    def distance() -> float:
        with loop.state.averaged() as averaged:
            return distance_from_data(sample_images(averaged, loop.state.progress, range(128), given), real)

    before = distance()
    while loop.state.progress.images_seen < loop.state.progress.num_images:
        loop.step()
    return Trained(loop, before, distance(), distance_from_data(real.mean(0, keepdims=True), real))


@every_gan
def test_it_learns(name: str) -> None:
    """After a short training its samples are three times nearer to the data than before, and nearer than the mean of
    all images, which a generator without any variety would make. The images of one class alone are all near to their
    mean."""
    found = trained(name)
    gan = found.loop.state.gan
    is_of_one_class = is_view(gan.origins(gan.config, gan.data)[gan.fields[0]])
    assert found.after < found.before / 3
    assert found.after < found.of_the_mean or is_of_one_class


@every_gan
def test_a_conditional_gan_obeys_its_label(name: str) -> None:
    loop = make_loop(name)
    if "label" not in loop.state.gan.given:
        with loop.state.averaged() as gan, pytest.raises(Exception, match="takes no label"):
            sample_images(gan, loop.state.progress, range(2), {"label": [0, 1]})
        return
    loop = trained(name).loop
    with loop.state.averaged() as gan:
        given = {key: rows for key, rows in given_to(gan, name, 64).items() if key != "label"}
        left, right = (
            sample_images(gan, loop.state.progress, range(64), {**given, "label": [k] * 64}).mean((0, 1, 2))
            for k in (0, 1)
        )
    assert left[:8].mean() > 2 * left[8:].mean()
    assert right[8:].mean() > 2 * right[:8].mean()


@every_gan
def test_the_package_makes_the_same_images(name: str, tmp_path: Path) -> None:
    loop = make_loop(name, settings={"precision": "fp32"})
    loop.step()
    state, package = loop.state, packaged(loop, tmp_path)
    given = given_to(state.gan, name, 4)
    rows = {key: [value.numpy() for value in values] for key, values in given.items()}
    found = Generator(package_files(package), "cpu").images([1, 2, 3, 4], rows)
    with state.averaged() as gan:
        own = sample_images(gan, state.progress, [1, 2, 3, 4], given)
    # Networks in training are channels-last, those of a package are not: sums differ in their last digit, and the value
    # that is rounded may lie on either side of a half.
    packaged_images = ((found.clamp(-1, 1) + 1) * 127.5).round().to(torch.int16).numpy()
    if own.ndim == 5:  # frames stand one below another
        own = own.transpose(0, 2, 1, 3, 4).reshape(packaged_images.shape)
    different = np.abs(packaged_images - own.astype(np.int16))
    assert different.max() <= 1
    assert (different > 0).mean() < 2e-3


@every_gan
def test_the_share_of_a_worker_is_its_part_of_the_same_draws(name: str) -> None:
    whole = Batch(10, BatchDraws(1, 10, 0, 10)).latent(7)
    shares = [share(0, 10, rank, 3) for rank in range(3)]
    parts = [Batch(stop - start, BatchDraws(1, 10, start, stop)).latent(7) for start, stop in shares]
    assert torch.equal(torch.cat(parts), whole)


def test_networks_are_seeded_as_by_torch() -> None:
    torch.manual_seed(12345)
    expected = torch.rand(10)
    torch.rand(7)
    seed_networks(12345, torch.device("cpu"))
    assert torch.equal(torch.rand(10), expected)


def test_the_notes_networks_are_exactly_the_notes() -> None:
    gan = gans.load("gan")(gans.load("gan").Config(), DataSpec.images(28, 1))

    def shapes(module: nn.Module) -> list[tuple[int, int]]:
        return [(layer.in_features, layer.out_features) for layer in module.modules() if isinstance(layer, nn.Linear)]

    assert shapes(gan.generator) == [(128, 1024), (1024, 1024), (1024, 784)]  # type: ignore[arg-type]
    assert shapes(gan.discriminator) == [(784, 256), (256, 256), (256, 1)]  # type: ignore[arg-type]
    kinds = [type(layer).__name__ for layer in gan.generator.modules()]  # type: ignore[union-attr]
    assert kinds.count("ReLU") == 2
    assert "Tanh" in kinds
    slopes = [layer.negative_slope for layer in gan.discriminator.modules() if isinstance(layer, nn.LeakyReLU)]  # type: ignore[union-attr]
    assert slopes == [0.2, 0.2]
    config = gans.load("gan").Config()
    assert config.adam_generator == Adam(lr=2e-4, beta1=0.5, beta2=0.999) == config.adam_discriminator  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_dcgan_at_every_size(size: int, channels: int) -> None:
    dcgan = gans.load("dcgan")
    config = dcgan.Config.model_validate({"generator_width": 2, "discriminator_width": 2, "num_latents": 4})
    gan = dcgan(config, DataSpec.images(size, channels)).eval()
    batch = Batch(2, BatchDraws(0, 2, 0, 2))
    images = gan.sample(batch, Progress(0, 1))
    assert images.shape == (2, channels, size, size)
    assert images.abs().max() <= 1
    assert gan.discriminate(images, batch).shape == (2,)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "config", "size"),
    [
        ("dcgan", {}, 28),
        ("dcgan", {}, 8),
        ("dcgan", {}, 512),
        ("sngan", {}, 28),
        ("wgan_gp", {"architecture": "convolutional"}, 24),
    ],
)
def test_an_image_size_that_a_gan_cannot_do_is_an_error(name: str, config: dict[str, str], size: int) -> None:
    gan = gans.load(name)
    with pytest.raises(Exception, match=f"data.image_size: got {size}.*power of two from 16 to 256"):
        gan.check(gan.Config.model_validate(config), DataSpec.images(size, 1))


def test_labels_that_are_not_there_are_an_error() -> None:
    cgan = gans.load("cgan")
    with pytest.raises(Exception, match="needs the field 'label'.*choose another train.gan or data.source"):
        cgan.check(cgan.Config(), DataSpec.images(28, 1))


def test_an_unknown_gan_names_the_nearest() -> None:
    with pytest.raises(Exception, match="no GAN named 'dcgam'; did you mean 'dcgan'"):
        gans.load("dcgam")


def test_the_convolutional_wgan_gp_has_no_batch_norm_in_its_critic() -> None:
    wgan = gans.load("wgan_gp")
    gan = wgan(wgan.Config.model_validate({"architecture": "convolutional"}), DataSpec.images(32, 1))
    assert not has_batch_norm(gan.critic)  # type: ignore[arg-type]
    assert has_batch_norm(gan.generator)  # type: ignore[arg-type]


def test_wgan_gp_draws_a_fresh_batch_for_each_critic_update() -> None:
    loop = make_loop("wgan_gp")
    seen: list[int] = []
    inner = loop.fetch
    loop.fetch = lambda start, stop: seen.append(start) or inner(start, stop)  # type: ignore[func-returns-value]
    loop.step()
    assert seen == [0, 16, 32, 48, 64]
    assert loop.state.progress.images_seen == 80
