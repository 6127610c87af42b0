"""Augmentation of what discriminators see: its changes one by one, its probability, and that every GAN obeys it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import numpy as np
import pretend_device
import pytest
import torch
from torch import Tensor, nn
from training_parts import largest_difference, make_loop, weights_of

from ganpipe import gans
from ganpipe.errors import GanpipeError
from ganpipe.gans import augmentation
from ganpipe.gans.augmentation import AdaptiveAugment, Augmentation, AugmentSettings, DiffAugment
from ganpipe.gans.base import Batch, Progress
from ganpipe.gans.draws import BatchDraws
from ganpipe.training.distributed import World
from ganpipe.training.loop import Loop

pretend_device.install()  # before the first backward pass of any test
AUGMENTED = [(name, kind) for name in gans.names() for kind in gans.load(name).augmentations]
every_augmented_gan = pytest.mark.parametrize(("name", "kind"), AUGMENTED)


@pytest.fixture(autouse=True)
def _swapping() -> Iterator[None]:
    with pretend_device.swapping():
        yield


def batch_of(num_samples: int, seed: int = 0) -> Batch:
    return Batch(num_samples, BatchDraws(seed, num_samples, 0, num_samples), dtype=torch.float64)


def pictures(num_samples: int = 6, channels: int = 3, side: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(num_samples, channels, side, side, generator=generator, dtype=torch.float64) * 2 - 1


def always() -> AdaptiveAugment:
    augment = AdaptiveAugment(0.6, 1000).double()
    augment.chance.fill_(1.0)
    return augment


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def test_settings_name_what_is_built() -> None:
    kinds = {kind: type(augmentation.build(AugmentSettings(kind=kind))) for kind in ("none", "diffaugment", "ada")}  # type: ignore[arg-type]
    assert kinds == {"none": Augmentation, "diffaugment": DiffAugment, "ada": AdaptiveAugment}


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_at_probability_zero_nothing_changes(channels: int) -> None:
    images = pictures(channels=channels)
    assert torch.allclose(AdaptiveAugment(0.6, 1000).double()(images, batch_of(6)), images, atol=1e-14)
    assert Augmentation()(images, batch_of(6)) is images


@pytest.mark.parametrize("augment", [DiffAugment(), always()])
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_each_image_is_changed_in_its_own_way_and_lets_gradients_through(augment: nn.Module, channels: int) -> None:
    images = pictures(1, channels).expand(6, -1, -1, -1).clone().requires_grad_()
    found = augment(images, batch_of(6))
    assert found.shape == images.shape
    assert all(not torch.allclose(found[i], found[j]) for i in range(6) for j in range(i))
    assert torch.equal(augment(images, batch_of(6)), found), "a function of the draws"
    found.sum().backward()
    assert images.grad is not None
    assert (images.grad.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("augment", [DiffAugment(), always()])
def test_a_stack_of_two_batches_has_other_draws_in_each(augment: nn.Module) -> None:
    images = pictures(3)
    first, second = augment(torch.cat([images, images]), batch_of(3)).chunk(2)
    assert not torch.allclose(first, second)


def test_moving_by_whole_pixels_is_a_slice() -> None:
    images = pictures()
    still = augmentation._resampling(8, column(1), column(0), reflects=False)
    down = augmentation._resampling(8, column(1), column(3), reflects=False)
    moved = augmentation._resampled(images, down, still)
    assert torch.allclose(moved[:, :, 3:], images[:, :, :5])
    assert (moved[:, :, :3] == 0).all()
    reflected = augmentation._resampled(images, augmentation._resampling(8, column(1), column(3), True), still)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (3, 0), (0, 0)), mode="symmetric")[:, :, :8]
    assert np.allclose(reflected.numpy(), padded)


def test_a_negative_scale_mirrors_and_a_larger_one_enlarges() -> None:
    images = pictures()
    still = augmentation._resampling(8, column(1), column(0), reflects=True)
    mirrored = augmentation._resampled(images, still, augmentation._resampling(8, column(-1), column(0), True))
    assert torch.allclose(mirrored, images.flip(3))
    ramp = torch.arange(8, dtype=torch.float64).reshape(1, 1, 1, 8).expand(1, 1, 8, 8)
    enlarged = augmentation._resampled(ramp, still, augmentation._resampling(8, column(2), column(0), True))
    assert torch.allclose(enlarged[0, 0, 0].diff(), torch.tensor(0.5, dtype=torch.float64))


def test_colours_turn_around_grey() -> None:
    images = pictures()
    turn = augmentation._coloured(images, column(1), column(2 * math.pi / 3), column(1))
    assert torch.allclose(turn, images.roll(1, 1)), "a third of a turn permutes the channels"
    free = augmentation._coloured(images, column(1), column(0.7), column(1))
    assert torch.allclose(free.norm(dim=1), images.norm(dim=1))
    assert torch.allclose(free.mean(1), images.mean(1))
    grey = augmentation._coloured(images, column(1), column(0), column(0))
    assert torch.allclose(grey, images.mean(1, keepdim=True).expand(-1, 3, -1, -1))


def test_cutout_takes_half_of_each_side_at_most() -> None:
    for place in np.linspace(0, 0.999, 20):
        cut = augmentation._cut_out(8, column(float(place)))
        assert cut.shape == (1, 1, 1, 8)
        assert 2 <= cut.sum() <= 4
    assert augmentation._cut_out(8, column(0.5)).flatten().tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_the_probability_finds_its_target() -> None:
    """A discriminator that overfits less the more is augmented: r = 0.95 - 0.7 p, so that r = 0.6 at p = 0.5."""
    augment = AdaptiveAugment(target=0.6, adapt_images=2000)
    for _ in range(200):
        augment.adapt({augmentation.OVERFITTING: 0.95 - 0.7 * augment.chance}, num_images=32)
    assert augment.chance.item() == pytest.approx(0.5, abs=0.04)
    for _ in range(200):
        augment.adapt({augmentation.OVERFITTING: torch.tensor(0.1)}, num_images=32)
    assert augment.chance.item() == 0.0
    augment.adapt({}, num_images=32)
    assert augment.chance.item() == 0.0


@every_augmented_gan
def test_every_gans_discriminator_sees_augmented_images(name: str, kind: str) -> None:
    """Real and generated ones: each loss of each player that sees images changes with the augmentation."""
    loop = make_loop(name)
    seen: list[int] = []

    class Counted(Augmentation):
        def forward(self, images_NCHW: Tensor, batch: Batch) -> Tensor:
            seen.append(len(images_NCHW))
            return images_NCHW

        def observe(self, real_logits: Tensor, batch: Batch) -> None:
            batch.observe(augmentation.OVERFITTING, real_logits.sign())

    loop.state.gan.augmentation = Counted()
    loop.state.progress = Progress(900_000, 1_000_000)  # past stages without a discriminator
    metrics = loop.step()
    assert sum(seen) >= 3 * 16, "real and generated images, and generated ones again in the generator's loss"
    assert kind != "ada" or augmentation.OVERFITTING in metrics


@every_augmented_gan
def test_it_trains_and_goes_on_from_a_checkpoint(name: str, kind: str) -> None:
    def loop_with(kind: str) -> Loop:
        loop = make_loop(name, settings={"augment": {"kind": kind}})
        loop.state.progress = Progress(900_000, 1_000_000)  # past stages without a discriminator
        for chance in loop.state.gan.augmentation.buffers():
            chance.fill_(0.9)
        return loop

    straight, plain, resumed = loop_with(kind), loop_with("none"), loop_with(kind)
    for _ in range(2):
        straight.step()
        plain.step()
    resumed.state.load_state_dict(copy.deepcopy(straight.state.state_dict()))
    straight.step()
    resumed.step()
    plain.step()
    assert largest_difference(weights_of(straight), weights_of(resumed)) == 0
    assert largest_difference(weights_of(straight), weights_of(plain)) > 0


@pytest.mark.parametrize("kind", ["diffaugment", "ada"])
def test_it_trains_in_bf16(kind: str) -> None:
    loop = make_loop("dcgan", settings={"precision": "bf16", "augment": {"kind": kind}})
    for chance in loop.state.gan.augmentation.buffers():
        chance.fill_(0.9)
    metrics = loop.step()
    assert all(torch.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("kind", ["diffaugment", "ada"])
def test_no_augmentation_waits_for_a_device(kind: str) -> None:
    settings = {"precision": "fp32", "augment": {"kind": kind, "adapt_images": 100}}
    loop = make_loop("dcgan", World(device=torch.device(pretend_device.DEVICE)), settings)
    inner = loop.fetch
    loop.fetch = lambda start, stop: {k: v.to(pretend_device.DEVICE) for k, v in inner(start, stop).items()}
    loop.step()
    with pretend_device.no_waiting():
        loop.step()


def test_a_gan_without_it_says_so() -> None:
    gans.load("dcgan").check_augmentation("ada")
    with pytest.raises(GanpipeError, match="train.augment.kind: got ada; expected none or diffaugment for WganGp"):
        gans.load("wgan_gp").check_augmentation("ada")
