"""Degraded images: functions of seed and sample, as the formulas say, and the same on any number of workers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ganpipe.gans.degradations import LowResolution, Moved, Noisy, Smaller, motion_kernels, motion_paths
from ganpipe.gans.draws import SeededDraws
from ganpipe.gans.holes import Hole, HoleKind, WithHole, hole_masks, with_hole

KINDS: tuple[HoleKind, ...] = ("centre", "block", "blocks", "strokes")
DEGRADATIONS = [Smaller(2), Smaller(4), LowResolution(4), Noisy(0.1), Moved(0.3), *(WithHole(kind) for kind in KINDS)]


def images(num: int, size: int = 16) -> Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(random.integers(0, 256, (num, 3, size, size))).float() / 127.5 - 1


@pytest.mark.parametrize("degradation", DEGRADATIONS, ids=str)
def test_each_sample_depends_on_its_own_seed_alone(degradation: Moved) -> None:
    found = degradation(images(5), SeededDraws(range(5)))
    alone = degradation(images(5)[3:4], SeededDraws([3]))
    assert torch.allclose(found[3:4], alone, atol=1e-6)
    levels = (found + 1) * 127.5
    assert (levels - levels.round()).abs().max() < 1e-3  # as a PNG holds them
    assert found.abs().max() <= 1


def test_a_path_has_its_length_and_a_kernel_the_time_at_each_pixel() -> None:
    paths_NT = motion_paths(SeededDraws(range(40)), length=12.0)
    steps = (paths_NT[:, 1:] - paths_NT[:, :-1]).abs()
    assert torch.allclose(steps.sum(1), torch.full((40,), 12.0), rtol=1e-4)
    assert paths_NT.abs().max() <= 12.01
    kernels_NKK = motion_kernels(SeededDraws(range(40)), 12.0, 13)
    assert torch.allclose(kernels_NKK.sum((1, 2)), torch.ones(40))
    assert (kernels_NKK >= 0).all()
    # A path that is straight covers a line of its length: no pixel holds much more than its share.
    widest = max(float(np.hypot(*np.ptp(np.argwhere(kernel.numpy() > 0), axis=0))) for kernel in kernels_NKK)
    assert widest > 8
    assert not torch.allclose(kernels_NKK[0], kernels_NKK[1])


def test_a_blurred_image_is_the_sum_of_moved_ones() -> None:
    image_1CHW = torch.full((1, 1, 16, 16), -1.0)
    image_1CHW[0, 0, 8, 8] = 1.0
    kernel_KK = motion_kernels(SeededDraws([7]), 4.0, 5)[0]
    blurred = Moved(0.25)(image_1CHW, SeededDraws([7]))
    around = (blurred[0, 0, 6:11, 6:11] + 1) / 2
    # A convolution in networks is a correlation: the point shows the kernel turned by 180 degrees.
    assert torch.allclose(around, kernel_KK.flip(0, 1), atol=1 / 255)


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("centre", 0.25, 0.25), ("block", 0.05, 0.3), ("blocks", 0.04, 0.45)]
)
def test_blocks_are_as_large_as_they_say(kind: HoleKind, least: float, most: float) -> None:
    covered_N = hole_masks(kind, 64, SeededDraws(range(200))).mean((1, 2, 3))
    assert least <= covered_N.min()
    assert covered_N.max() <= most


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_hole_covers_something_and_never_all(kind: HoleKind, size: int) -> None:
    masks_N1HW = hole_masks(kind, size, SeededDraws(range(300)))
    assert masks_N1HW.shape == (300, 1, size, size)
    assert set(masks_N1HW.unique().tolist()) == {0.0, 1.0}
    covered_N = masks_N1HW.mean((1, 2, 3))
    assert covered_N.min() > 0.01
    assert covered_N.max() < 0.6
    if kind != "centre":
        assert len({mask.numpy().tobytes() for mask in masks_N1HW}) > 250


def test_image_and_mask_of_a_sample_agree() -> None:
    for kind in KINDS:
        source, mask = WithHole(kind)(images(4), SeededDraws(range(4))), Hole(kind)(images(4), SeededDraws(range(4)))
        assert torch.equal(source, with_hole(images(4), mask))
        is_missing = (mask > 0).expand_as(source)
        assert torch.equal(source[~is_missing], images(4)[~is_missing])
        assert (source[is_missing] * 127.5 + 127.5).round().unique().tolist() == [128]


def test_noise_has_the_deviation_that_is_asked_for() -> None:
    grey = torch.zeros(50, 1, 32, 32)
    found = Noisy(0.1)(grey, SeededDraws(range(50)))
    assert found.std().item() == pytest.approx(0.2, rel=0.02)  # of values from -1 to 1
    assert abs(found.mean().item()) < 3 * 0.2 / math.sqrt(found.numel()) + 1 / 255
