"""Several workers train as one: without Ray, over gloo on loopback."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import nn
from training_parts import largest_difference, make_loop, weights_of

from ganpipe.training.averaging import GradientSums
from ganpipe.training.distributed import SynchronisedBatchNorm, World, synchronise_batch_norm


def train_share(rank: int, size: int, name: str, num_steps: int, folder: str, settings: dict[str, Any]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    loop = make_loop(name, World(rank, size), settings)
    metrics = {}
    for _ in range(num_steps):
        metrics = loop.step()
    torch.save(
        {"weights": weights_of(loop), "metrics": metrics, "buffers": dict(loop.state.gan.named_buffers())},
        f"{folder}/{rank}.pt",
    )
    torch.distributed.destroy_process_group()


def run_workers(size: int, name: str, num_steps: int, folder: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    arguments = (size, name, num_steps, str(folder), settings)
    torch.multiprocessing.start_processes(train_share, arguments, nprocs=size, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.mark.parametrize(("name", "size", "batch_size"), [("dcgan", 3, 16), ("wgan_gp", 2, 6), ("biggan", 2, 6)])
def test_workers_with_unequal_shares_train_as_one(name: str, size: int, batch_size: int, tmp_path: Path) -> None:
    settings = {"batch_size": batch_size}
    alone = make_loop(name, settings=settings)
    metrics = {}
    for _ in range(10):
        metrics = alone.step()
    together = run_workers(size, name, 10, tmp_path, settings)
    for result in together:
        assert largest_difference(result["weights"], weights_of(alone)) < 1e-8
        assert all(float(result["metrics"][key]) == pytest.approx(float(metrics[key]), abs=1e-5) for key in metrics)
        for key, value in alone.state.gan.named_buffers():
            assert torch.allclose(result["buffers"][key].double(), value.double(), atol=1e-8), key
    first, *others = together
    for other in others:
        assert largest_difference(first["weights"], other["weights"]) == 0, "workers drifted apart"


def test_workers_share_what_adapts(tmp_path: Path) -> None:
    """StyleGAN2's mean path length, which its next updates depend on, is that of all shares."""
    first, second = run_workers(2, "stylegan2", 5, tmp_path, {})
    assert first["buffers"]["path_mean"] > 0
    assert torch.equal(first["buffers"]["path_mean"], second["buffers"]["path_mean"])
    assert largest_difference(first["weights"], second["weights"]) == 0


def lose_a_worker(rank: int, folder: str, operation: str, number: int) -> None:
    """Rank 1 dies as it comes to an exchange for the time numbered `number`; rank 0 notes how it learns of that."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    if rank == 1:
        exchange, calls = getattr(torch.distributed, operation), iter(range(1, number))

        def fatal(*arguments: Any, **options: Any) -> Any:
            if next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return exchange(*arguments, **options)

        setattr(torch.distributed, operation, fatal)
    loop = make_loop("dcgan", World(rank, 2))
    try:
        for _ in range(20):
            loop.step()
    except Exception as error:
        Path(folder, "error").write_text(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize(
    ("operation", "number"), [("all_gather", 9), pytest.param("all_reduce", 2, marks=pytest.mark.slow)]
)
def test_a_lost_worker_is_no_error_of_the_code(operation: str, number: int, tmp_path: Path) -> None:
    """Else the training would not be taken up again. Exchanges happen forwards, within autograd, and after it."""
    arguments = (str(tmp_path), operation, number)
    context = torch.multiprocessing.start_processes(
        lose_a_worker, arguments, nprocs=2, join=False, start_method="spawn"
    )
    for process in context.processes:
        process.join(120)
    assert [process.exitcode for process in context.processes] == [0, -signal.SIGKILL]
    assert (tmp_path / "error").read_text().startswith("LostWorker: another worker was lost: ")


def compare_batch_norm(rank: int, size: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    torch.manual_seed(0)
    inputs = torch.randn(7, 3, 4, 4, dtype=torch.float64) * 3 + 5
    reference = nn.BatchNorm2d(3).double()
    nn.init.normal_(reference.weight)
    model = nn.Sequential(nn.BatchNorm2d(3)).double()
    model[0].load_state_dict(reference.state_dict())
    synchronise_batch_norm(model)
    assert isinstance(model[0], SynchronisedBatchNorm)
    rows = slice(0, 3) if rank == 0 else slice(3, 7)
    whole = inputs.clone().requires_grad_()
    own = inputs[rows].clone().requires_grad_()
    expected, found = reference(whole), model(own)
    torch.testing.assert_close(found, expected[rows])
    torch.testing.assert_close(model[0].running_mean, reference.running_mean)
    torch.testing.assert_close(model[0].running_var, reference.running_var)
    # By torch's kernels, as in most updates.
    inputs_of = [(whole, reference.weight, reference.bias), (own, model[0].weight, model[0].bias)]
    weights = torch.linspace(-1, 2, expected.numel(), dtype=torch.float64).view_as(expected)
    by_all = torch.autograd.grad((expected * weights).sum(), inputs_of[0], retain_graph=True)
    by_share = torch.autograd.grad((found * weights[rows]).sum(), inputs_of[1], retain_graph=True)
    torch.testing.assert_close(by_share[0], by_all[0][rows])
    for share, total in zip(by_share[1:], by_all[1:], strict=True):
        torch.distributed.all_reduce(share)  # a parameter's gradient is the sum over workers, which the loop takes
        torch.testing.assert_close(share, total)
    # First and second derivatives, as a gradient penalty takes them.
    (gradient,) = torch.autograd.grad(expected.pow(3).sum(), whole, create_graph=True)
    (own_gradient,) = torch.autograd.grad(found.pow(3).sum(), own, create_graph=True)
    torch.testing.assert_close(own_gradient, gradient[rows])
    (second,) = torch.autograd.grad(gradient.pow(2).sum(), whole)
    (own_second,) = torch.autograd.grad(own_gradient.pow(2).sum(), own)
    torch.testing.assert_close(own_second, second[rows])
    # In the types of mixed precision, far from zero.
    single = nn.Sequential(nn.BatchNorm2d(3))
    synchronise_batch_norm(single)
    far = (inputs + 100).bfloat16()
    close = nn.BatchNorm2d(3)(far.float())
    torch.testing.assert_close(single(far[rows]).float(), close[rows], atol=0.02, rtol=0.02)
    model.eval()
    reference.eval()
    torch.testing.assert_close(model(inputs[rows]), reference(inputs)[rows])
    torch.distributed.destroy_process_group()


def test_synchronised_batch_norm_is_batch_norm_over_all_shares(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(compare_batch_norm, (2, str(tmp_path)), nprocs=2, start_method="spawn")


def compare_sums(rank: int, size: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=size)
    torch.manual_seed(rank)
    layers = [nn.Linear(1024, 1024, bias=False) for _ in range(3)]  # 4 MiB each
    early, unused = (nn.Parameter(torch.ones(3)) for _ in range(2))
    parameters = [layer.weight for layer in layers] + [early, unused]
    network, input = nn.Sequential(*layers), torch.randn(4, 1024)
    losses = [network(input).square().mean() + early.sum(), network(input).mean()]
    expected = [
        sum(gradient for gradient in gradients if gradient is not None)
        for gradients in zip(
            *(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses),
            strict=True,
        )
    ]
    for gradient in expected[:-1]:
        torch.distributed.all_reduce(gradient)

    events = []
    all_reduce = torch.distributed.all_reduce

    def noted(tensor: torch.Tensor, **named: bool) -> Any:
        events.append("sent")
        return all_reduce(tensor, **named)

    torch.distributed.all_reduce = noted
    summing = GradientSums(World(rank, size), parameters)
    summing.add(losses[0], {"number": torch.tensor(1.0)}, is_last=False)
    assert not events, "a sum goes out before it is complete"
    layers[0].weight.register_hook(lambda gradient: events.append("backward is at the first layer"))
    summing.add(losses[1], {"number": torch.tensor(2.0 + rank)}, is_last=True)
    assert events[0] == "sent"
    assert "backward is at the first layer" in events[1:]
    sums = summing.finish()
    assert float(sums.pop("number")) == 7
    assert set(sums) == {0, 1, 2, 3}, "nothing for the parameter that no loss depends on"
    for number, found in sums.items():
        torch.testing.assert_close(found, expected[number])
    torch.distributed.destroy_process_group()


def test_gradients_are_summed_while_the_backward_pass_goes_on(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(compare_sums, (2, str(tmp_path)), nprocs=2, start_method="spawn")


def test_one_worker_sums_its_micro_batches() -> None:
    weight = nn.Parameter(torch.ones(2))
    summing = GradientSums(World(), [weight])
    summing.add((2 * weight).sum(), {"number": torch.tensor(1.0)}, is_last=False)
    summing.add((3 * weight).sum(), {"number": torch.tensor(2.0)}, is_last=True)
    sums = summing.finish()
    assert sums[0].tolist() == [5, 5]
    assert float(sums["number"]) == 3
