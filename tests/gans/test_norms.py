"""Gradients do not depend on the memory layout in which the next layer hands them back, and a GPU can repeat them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from ganpipe.networks.mlp import mlp
from ganpipe.networks.norms import DenseBatchNorm, InstanceNorm, normalised
from ganpipe.networks.resnet import ReflectedConv2d

RANDOM = torch.Generator().manual_seed(0)
IMAGES = torch.randn(16, 4, 16, 16, dtype=torch.float64, generator=RANDOM)
WEIGHTS = torch.randn(1, 4, 16, 16, dtype=torch.float64, generator=RANDOM).expand(16, -1, -1, -1)


def gradients(norm: nn.Module, behind: nn.Module, images_NCHW: torch.Tensor) -> list[torch.Tensor]:
    """Of the norm's gain and bias, with a layer behind it."""
    return list(torch.autograd.grad((behind(norm(images_NCHW)) * WEIGHTS[: len(images_NCHW)]).sum(), norm.parameters()))


def disagreement(norm: nn.Module) -> float:
    """Between the gradients of a batch and the sum of those of its halves, with a channels-last layer behind."""
    norm, behind = norm.double(), nn.Conv2d(4, 4, 3, 1, 1, bias=False).double()
    behind = behind.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    whole = gradients(norm, behind, IMAGES)
    ones = [gradients(norm, behind, image_1CHW) for image_1CHW in IMAGES.split(1)]
    return max(float((found - sum(parts)).abs().max()) for found, *parts in zip(whole, *ones, strict=True))


def test_instance_norm_learns_alike_in_any_layout() -> None:
    assert disagreement(InstanceNorm(4)) < 1e-9


def test_it_is_instance_norm() -> None:
    expected = nn.InstanceNorm2d(4, affine=True).double()(IMAGES)
    assert torch.allclose(InstanceNorm(4).double()(IMAGES), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_comes_out_has_the_layout_that_came_in(layout: torch.memory_format) -> None:
    images = IMAGES.contiguous(memory_format=layout)
    for found in (InstanceNorm(4).double()(images), normalised(images)):
        assert found.is_contiguous(memory_format=layout)


def test_torchs_own_still_goes_wrong() -> None:
    """When this fails, torch has been mended, and `networks/norms.py` may take torch's."""
    assert disagreement(nn.InstanceNorm2d(4, affine=True)) > 0.1


def test_a_dense_batch_norm_takes_a_single_sample_too() -> None:
    norm, torchs_own = DenseBatchNorm(5), nn.BatchNorm1d(5)
    samples = torch.randn(8, 5, generator=RANDOM)
    assert torch.equal(norm(samples), torchs_own(samples))
    expected = torchs_own.eval()(samples[:1])
    assert torch.equal(norm(samples[:1]), expected)
    assert torch.equal(norm.running_mean, torchs_own.running_mean)


def test_reflected_borders_are_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = ReflectedConv2d(2, 3, 7), nn.Conv2d(2, 3, 7, padding=3, padding_mode="reflect")
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 2, 8, 8, requires_grad=True)
    assert torch.allclose(ours(images), theirs(images), atol=1e-6)
    gradients = [torch.autograd.grad(layer(images).square().sum(), images)[0] for layer in (ours, theirs)]
    assert torch.allclose(*gradients, atol=1e-4)
    assert torch.autograd.gradcheck(ours.double(), images.double())
    assert torch.autograd.gradgradcheck(ours, images.double())


def test_no_network_differentiates_what_a_gpu_cannot_repeat() -> None:
    """What `torch.use_deterministic_algorithms` refuses on a GPU, and networks are tempted to use."""
    refused = re.compile(
        r'adaptive_\w+_pool|Adaptive\w+Pool|grid_sample|ReflectionPad|padding_mode=|mode="(?:reflect|bi)'
    )
    files = sorted((Path(__file__).parents[2] / "ganpipe" / "networks").glob("*.py"))
    assert files
    found = {path.name: refused.findall(_code_of(path)) for path in files}
    assert not {name: names for name, names in found.items() if names}


def _code_of(path: Path) -> str:
    """The code without docstrings and comments, and without functions that have a gradient of their own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and "torch.autograd.Function" in map(ast.unparse, node.bases):
            node.body = [ast.Pass()]
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree).replace("'", '"')


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_batch_norm_stands_before_each_activation_of_a_fully_connected_network_and_not_at_its_end() -> None:
    def kinds(batch_norm: bool) -> list[str]:
        return [type(layer).__name__ for layer in mlp([2, 3, 4, 5], torch.nn.ReLU, batch_norm)]

    assert kinds(False) == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert kinds(True) == ["Linear", "DenseBatchNorm", "ReLU", "Linear", "DenseBatchNorm", "ReLU", "Linear"]
