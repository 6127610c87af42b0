"""On a CUDA device: `pytest -m gpu`. The loop never waits for it, and what it computes there is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from training_parts import SMALL, SPEC, blobs, largest_difference, weights_of

from ganpipe import gans
from ganpipe.training.distributed import World
from ganpipe.training.loop import Loop
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import TrainingState

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
every_gan = pytest.mark.parametrize("name", gans.names())


@pytest.fixture(autouse=True)
def _deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As training/worker.py sets it."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.cuda.set_sync_debug_mode("default")


def loop_on(device: str, name: str, **settings: Any) -> Loop:
    """A training on blobs that lie on the device, without dropout, whose masks are each device's own."""
    values = {"gan": name, "num_images": 10**6, "batch_size": 32, "seed": 3, **settings}
    train_settings = TrainSettings.model_validate(values)
    world = World(device=torch.device(device))
    settings_class = gans.load(name).Config
    no_dropout = {"dropout": 0.0} if "dropout" in settings_class.model_fields else {}
    state = TrainingState(
        name, settings_class.model_validate(SMALL.get(name, {}) | no_dropout), SPEC, train_settings, world
    )
    fields = {
        key: value.to(device, state.dtype if value.is_floating_point() else value.dtype)
        for key, value in blobs(512).items()
    }

    def fetch(start: int, stop: int) -> dict[str, torch.Tensor]:
        first = start % (512 - 32)
        return {key: value[first : first + stop - start] for key, value in fields.items()}

    return Loop(state, fetch, train_settings, world)


@every_gan
def test_the_loop_never_waits_for_the_device(name: str) -> None:
    loop = loop_on("cuda", name, precision="bf16")
    for _ in range(3):  # handles, plans and optimiser states are made
        loop.step()
    torch.cuda.set_sync_debug_mode("error")
    for _ in range(5):
        loop.state.curves.add(loop.step())
    torch.cuda.set_sync_debug_mode("default")
    assert loop.state.progress.step == 8


@every_gan
def test_bf16_trains_like_fp32(name: str) -> None:
    """Losses of the first steps, before rounding has driven the two apart, agree to bf16's precision."""
    losses = {}
    for precision in ("fp32", "bf16"):
        loop = loop_on("cuda", name, precision=precision)
        losses[precision] = [{key: float(value) for key, value in loop.step().items()} for _ in range(5)]
    for first, second in zip(losses["fp32"], losses["bf16"], strict=True):
        for key in first:
            assert second[key] == pytest.approx(first[key], rel=0.05, abs=0.05), key


@every_gan
def test_the_device_computes_what_the_cpu_does(name: str) -> None:
    on_cpu, on_device = loop_on("cpu", name, precision="fp64"), loop_on("cuda", name, precision="fp64")
    for _ in range(3):
        on_cpu.step()
        on_device.step()
    moved = {key: value.cpu() for key, value in weights_of(on_device).items()}
    assert largest_difference(weights_of(on_cpu), moved) < 1e-6


@every_gan
def test_twice_is_the_same_to_the_bit(name: str) -> None:
    first, second = loop_on("cuda", name, precision="bf16"), loop_on("cuda", name, precision="bf16")
    for _ in range(10):
        first.step()
        second.step()
    assert largest_difference(weights_of(first), weights_of(second)) == 0
