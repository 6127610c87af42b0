"""Every GAN on an accelerator, as far as that can be shown without one: see `pretend_device`.

Tensors of two devices that meet, and whatever makes the host wait within a step, are errors here as on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pretend_device
import pytest
import torch
from training_parts import case_of, given_to, largest_difference, make_loop, packaged, weights_of

from ganpipe import gans
from ganpipe.evaluation.extractors import efficientnet_lite0
from ganpipe.evaluation.grids import png
from ganpipe.evaluation.sample_grids import sample_grid
from ganpipe.evaluation.sampling import interpolate, sample_images
from ganpipe.packaging.served_model import Generator, package_files
from ganpipe.training.distributed import World
from ganpipe.training.feed import Feed
from ganpipe.training.loop import Loop
from ganpipe.training.state import CheckpointStore

pretend_device.install()  # before the first backward pass of any test
every_gan = pytest.mark.parametrize("name", gans.names())
SETTINGS = {"precision": "fp32", "max_gradient_norm": 1.0, "ema_half_life": 100, "log_every": 64}


def loop_on(device: str, name: str, **settings: object) -> Loop:
    """A training that is fed as Ray's workers are, on `device`."""
    loop = make_loop(name, World(device=torch.device(device)), {**SETTINGS, **settings})
    origins = loop.state.gan.origins(loop.state.gan.config, loop.state.gan.data)
    loop.fetch = Feed(case_of(name).dataset(), origins, seed=1, device=loop.state.device, dtype=loop.state.dtype)  # type: ignore[arg-type]
    return loop


@pytest.fixture(autouse=True)
def _swapping() -> Iterator[None]:
    with pretend_device.swapping():
        yield


@every_gan
def test_no_step_waits_for_the_device_and_all_compute_what_the_cpu_does(name: str) -> None:
    on_device, on_cpu = loop_on(pretend_device.DEVICE, name), loop_on("cpu", name)
    on_device.step()  # optimisers make their state
    on_cpu.step()
    with pretend_device.no_waiting():
        for _ in range(2):
            on_device.state.curves.add(on_device.step())
    for _ in range(2):
        on_cpu.state.curves.add(on_cpu.step())
    found, expected = (loop.state.curves.end_window(loop.state.progress) for loop in (on_device, on_cpu))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    moved = {key: value.cpu() for key, value in weights_of(on_device).items()}
    assert largest_difference(moved, weights_of(on_cpu)) < 1e-4
    assert all(average.device.type == "pretend" for average in on_device.state.ema.averages.values())


@every_gan
def test_micro_batches_do_not_wait_either(name: str) -> None:
    loop = loop_on(pretend_device.DEVICE, name, micro_batch_size=5)
    loop.step()
    with pretend_device.no_waiting():
        loop.step()


@every_gan
def test_samples_are_those_of_the_cpu(name: str) -> None:
    on_device, on_cpu = loop_on(pretend_device.DEVICE, name), loop_on("cpu", name)
    for loop in (on_device, on_cpu):
        loop.step()
    with on_device.state.averaged() as gan, on_cpu.state.averaged() as same:
        given = given_to(same, name, 6)
        first = {key: values[:1] for key, values in given.items()}
        for draw in (
            lambda gan, progress: sample_images(gan, progress, range(6), given, truncation=0.7),
            lambda gan, progress: interpolate(gan, progress, (0, 1), 3, first),
        ):
            found, expected = draw(gan, on_device.state.progress), draw(same, on_cpu.state.progress)
            assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
        dataset: Any = case_of(name).dataset()
        assert png(sample_grid(gan, on_device.state.progress, 4, dataset=dataset)).startswith(b"\x89PNG")


@every_gan
def test_a_checkpoint_goes_on_there(name: str, tmp_path: Path) -> None:
    straight = loop_on(pretend_device.DEVICE, name)
    store = CheckpointStore(str(tmp_path), keep=1)
    for _ in range(2):
        straight.step()
    store.save(straight.state)
    straight.step()
    resumed = loop_on(pretend_device.DEVICE, name)
    resumed.state.load_state_dict(store.load(store.newest()))
    assert all(parameter.device.type == "pretend" for parameter in resumed.state.gan.parameters())
    with pretend_device.no_waiting():
        resumed.step()
    difference = largest_difference(
        *({key: value.cpu() for key, value in weights_of(loop).items()} for loop in (resumed, straight))
    )
    assert difference == 0


@every_gan
def test_the_packaged_model_generates_there(name: str, tmp_path: Path) -> None:
    loop = loop_on("cpu", name)
    files = package_files(packaged(loop, tmp_path))
    given = {key: list(values.numpy()) for key, values in given_to(loop.state.gan, name, 3).items()}
    on_cpu = Generator(files, "cpu").images([1, 2, 3], given)
    on_device = Generator(files, pretend_device.DEVICE).images([1, 2, 3], given)
    assert on_device.device.type == "cpu"
    assert torch.allclose(on_cpu, on_device, atol=1e-5)


def test_features_are_those_of_the_cpu() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 32, 32), dtype=np.uint8)
    found, expected = (efficientnet_lite0(64, device).features(images) for device in (pretend_device.DEVICE, "cpu"))
    assert np.allclose(found, expected, atol=1e-3)


def test_two_devices_must_not_meet_and_waiting_is_seen() -> None:
    """The pretend device itself: what it is for."""
    there = torch.ones(3).to(pretend_device.DEVICE)
    with pytest.raises(RuntimeError, match="one tensor on pretend:0, another on cpu"):
        there + torch.ones(3)
    assert (there + 1).cpu().tolist() == [2.0] * 3
    for wait in (
        lambda: there.sum().item(),
        lambda: there.cpu(),
        lambda: bool(there.sum() > 0),
        lambda: there.nonzero(),
    ):
        with pretend_device.no_waiting(), pytest.raises(RuntimeError, match="the host waits for the device"):
            wait()
