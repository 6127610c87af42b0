"""What a training keeps beside parameters: pools of earlier images, and networks that are never trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pretend_device
import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn
from training_parts import SPEC, blobs, fetch_from, largest_difference, weights_of

import ganpipe.training.state
from ganpipe.gans.base import Batch, Losses, Progress
from ganpipe.gans.draws import BatchDraws
from ganpipe.gans.gan import GanSettings, OriginalGan
from ganpipe.gans.pools import Pool, PoolSpec
from ganpipe.training.distributed import World
from ganpipe.training.loop import Loop
from ganpipe.training.settings import TrainSettings
from ganpipe.training.state import CheckpointStore, TrainingState

pretend_device.install()  # before the first backward pass of any test


def extractor() -> nn.Module:
    torch.manual_seed(99)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))


class PooledGan(OriginalGan):
    """The discriminator sees earlier images, the generator's loss a frozen network's features."""

    def replay_pools(self) -> dict[str, PoolSpec]:
        return {"fake": PoolSpec(20, self.data.image_shape)}

    def frozen_networks(self) -> dict[str, Any]:
        return {"extractor": extractor}

    def discriminator_losses_on(self, fake_NCHW: Tensor, batch: Batch) -> Losses:
        return super().discriminator_losses_on(
            self.pools["fake"].exchange(fake_NCHW, batch.draws, batch.first_row), batch
        )

    def generator_losses(self, batch: Batch, progress: Progress) -> Losses:
        features = self.frozen["extractor"](self._generated(batch)) - self.frozen["extractor"](batch["image"])
        return {**super().generator_losses(batch, progress), "perceptual": features.square().mean()}


def make_loop(world: World | None = None, **settings: Any) -> Loop:
    ganpipe.training.state.load = lambda name: PooledGan  # type: ignore[attr-defined]
    values = {"num_images": 10**6, "batch_size": 8, "precision": "fp64", "seed": 3, **settings}
    train, world = TrainSettings.model_validate(values), world or World()
    config = GanSettings(generator_width=16, discriminator_width=16, num_latents=4)
    state = TrainingState("pooled", config, SPEC, train, world)
    return Loop(state, fetch_from(blobs(64), state.dtype), train, world)


@pytest.fixture(autouse=True)
def _own_gan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganpipe.training.state.load", None)  # what make_loop sets is taken back


def pools_of(loop: Loop) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in loop.state._pools().items()}


def test_a_pool_fills_and_then_gives_away_half_of_the_time() -> None:
    pool, given, returned = Pool(PoolSpec(12, (1, 1, 1)), batch_size=4), [], []
    for step in range(400):
        images = (torch.arange(4) + 4 * step).reshape(4, 1, 1, 1).float()
        given.append(images.flatten())
        returned.append(pool.exchange(images, BatchDraws(step, 4, 0, 4), 0).flatten())
        # Each row keeps its own images.
        assert all((pool.images_GSCHW[row] % 4 == row).all() for row in range(4) if step >= 3)
    assert pool.num_slots == 3
    assert torch.equal(torch.stack(returned[:3]), torch.stack(given[:3])), "while it fills it gives back what is new"
    old = torch.stack([back != new for back, new in zip(returned[3:], given[3:], strict=True)]).float().mean()
    assert 0.45 < float(old) < 0.55
    # What is given away leaves the pool, so only those that filled it are shown twice; and nothing is made up.
    everything = torch.cat(returned)
    assert len(everything) - len(everything.unique()) <= 12
    assert set(everything.tolist()) <= set(torch.cat(given).tolist())
    # An image that waits does so for some steps, not for ever and not for none.
    waits = [(new - back) / 4 for back, new in zip(everything.tolist(), torch.cat(given).tolist(), strict=True)]
    assert 2 < sum(waits) / len(waits) < 6


def share_of(rank: int, size: int, folder: str, steps: int, from_checkpoint: bool) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    world = World(rank, size)
    loop = make_loop(world)
    store = CheckpointStore(f"{folder}/checkpoints", keep=5)
    if from_checkpoint:
        loop.state.load_state_dict(store.load(store.newest()))
    for _ in range(steps):
        loop.step()
    loop.state.synchronise(world)
    if rank == 0:
        store.save(loop.state)
    torch.distributed.destroy_process_group()


def run_two(folder: Path, steps: int, from_checkpoint: bool = False) -> dict[str, Any]:
    torch.multiprocessing.start_processes(
        share_of, (2, str(folder), steps, from_checkpoint), nprocs=2, start_method="spawn"
    )
    store = CheckpointStore(str(folder / "checkpoints"), keep=5)
    return store.load(store.newest())


def require_same(state: dict[str, Any], loop: Loop) -> None:
    """The weights agree up to rounding, and so do the images in the pools, which are the same ones."""
    pools = pools_of(loop)
    assert torch.equal(state["pools"]["fake.num_filled_G"], pools["fake.num_filled_G"])
    assert torch.allclose(state["pools"]["fake.images_GSCHW"], pools["fake.images_GSCHW"], atol=1e-8)
    assert pools["fake.images_GSCHW"].abs().sum() > 0
    own = weights_of(loop)
    assert max(float((state["gan"][name] - value).abs().max()) for name, value in own.items()) < 1e-8


def test_two_workers_have_the_pool_of_one(tmp_path: Path) -> None:
    alone = make_loop()
    for _ in range(10):
        alone.step()
    require_same(run_two(tmp_path, 10), alone)


def test_a_pool_is_kept_at_another_number_of_workers(tmp_path: Path) -> None:
    alone = make_loop()
    for _ in range(5):
        alone.step()
    CheckpointStore(str(tmp_path / "checkpoints"), keep=5).save(alone.state)
    for _ in range(5):
        alone.step()
    require_same(run_two(tmp_path, 5, from_checkpoint=True), alone)


def test_a_pool_does_not_know_of_micro_batches() -> None:
    whole, cut = make_loop(), make_loop(micro_batch_size=3)
    for loop in (whole, cut):
        loop.state.gan.frozen["extractor"] = nn.Identity()  # with batch norm the parts of a batch would differ
        for _ in range(8):
            loop.step()
    assert largest_difference(weights_of(whole), weights_of(cut)) < 1e-9
    assert torch.allclose(pools_of(whole)["fake.images_GSCHW"], pools_of(cut)["fake.images_GSCHW"], atol=1e-9)


def test_going_on_from_a_checkpoint_keeps_the_pool_to_the_bit(tmp_path: Path) -> None:
    straight, store = make_loop(), CheckpointStore(str(tmp_path), keep=1)
    for _ in range(5):
        straight.step()
    store.save(straight.state)
    for _ in range(5):
        straight.step()
    resumed = make_loop()
    resumed.state.load_state_dict(store.load(store.newest()))
    for _ in range(5):
        resumed.step()
    assert largest_difference(weights_of(resumed), weights_of(straight)) == 0
    assert all(torch.equal(tensor, pools_of(straight)[name]) for name, tensor in pools_of(resumed).items())


def test_a_checkpoint_without_the_pool_is_refused(tmp_path: Path) -> None:
    loop = make_loop()
    state = loop.state.state_dict()
    with pytest.raises(Exception, match=r"pools lacks fake\.num_filled_G"):
        loop.state.load_state_dict({**state, "pools": {"fake.images_GSCHW": state["pools"]["fake.images_GSCHW"]}})


def test_a_frozen_network_is_never_trained_never_saved_and_always_in_evaluation_mode() -> None:
    loop = make_loop()
    network = loop.state.gan.frozen["extractor"]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for _ in range(3):
        loop.step()
    with loop.state.averaged():
        pass  # which puts the GAN back into training mode
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    state = loop.state.state_dict()
    saved = [*state["gan"], *state["ema"], *loop.state.generator_state(), *dict(loop.state.gan.named_parameters())]
    assert saved
    assert not [name for name in saved if "extractor" in name or "frozen" in name]
    assert loop.state.curves.rows == []
    assert "generator_perceptual" in loop.step()


def test_pools_and_frozen_networks_are_where_the_training_is() -> None:
    with pretend_device.swapping():
        loop = make_loop(World(device=torch.device(pretend_device.DEVICE)), precision="fp32")
        fields = {name: value.to(loop.state.device, torch.float32) for name, value in blobs(64).items()}
        loop.fetch = lambda start, stop: {name: value[start % 64 : start % 64 + 8] for name, value in fields.items()}
        loop.step()
        with pretend_device.no_waiting():
            loop.step()
    assert all(tensor.device.type == "pretend" for tensor in pools_of(loop).values())
