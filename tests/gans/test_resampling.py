"""The binomial filter against SciPy's, and what follows from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal
from torch import Tensor
from torch.nn import functional as F

from ganpipe.networks.resampling import Binomial

RANDOM = torch.Generator().manual_seed(0)
BINOMIAL = Binomial().double()
WEIGHTS = np.array([1, 3, 3, 1]) / 8


def images(size: int = 8) -> Tensor:
    return torch.randn(2, 3, size, size, dtype=torch.float64, generator=RANDOM)


def by_scipy(images_NCHW: Tensor, gain: float, up: int, down: int) -> np.ndarray:
    """All of what `upfirdn` puts out, which begins where the filter first touches the image."""
    array = images_NCHW.numpy()
    for axis in (2, 3):
        array = signal.upfirdn(gain * WEIGHTS, array, up=up, down=down, axis=axis)
    return array


def test_upsampling_is_scipys() -> None:
    x = images()
    expected = by_scipy(x, 2, up=2, down=1)[:, :, 1:17, 1:17]
    assert np.allclose(BINOMIAL.upsample(x).numpy(), expected, rtol=0, atol=1e-12)


def test_downsampling_is_scipys() -> None:
    x = images()
    expected = by_scipy(x, 1, up=1, down=2)[:, :, 1:5, 1:5]
    assert np.allclose(BINOMIAL.downsample(x).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("padding", [1, 2])
def test_smoothing_is_scipys(padding: int) -> None:
    x, cut = images(), 3 - padding
    full = by_scipy(x, 1, up=1, down=1)
    expected = full[:, :, cut : full.shape[2] - cut, cut : full.shape[3] - cut]
    assert np.allclose(BINOMIAL.smooth(x, padding).numpy(), expected, rtol=0, atol=1e-12)


def test_upsampling_is_repeating_pixels_and_blurring_by_1_2_1() -> None:
    """StyleGAN's words for what StyleGAN2 writes as [1 3 3 1]."""
    x = images()
    repeated = F.interpolate(x, scale_factor=2, mode="nearest")
    blur = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    kernel = torch.outer(blur, blur).repeat(3, 1, 1, 1)
    blurred = F.conv2d(repeated, kernel, padding=1, groups=3)
    assert torch.allclose(BINOMIAL.upsample(x), blurred, rtol=0, atol=1e-12)


def test_an_upsampling_convolution_is_a_convolution_of_the_upsampled_image_away_from_the_border() -> None:
    x, weight = images(), torch.randn(5, 3, 3, 3, dtype=torch.float64, generator=RANDOM)
    found = BINOMIAL.upsampling_convolution(x, weight)
    # A transposed convolution mirrors its kernel.
    expected = F.conv2d(BINOMIAL.upsample(x), weight.flip(2, 3), padding=1)
    assert found.shape == expected.shape == (2, 5, 16, 16)
    assert torch.allclose(found[:, :, 2:-2, 2:-2], expected[:, :, 2:-2, 2:-2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("resample", [BINOMIAL.upsample, BINOMIAL.downsample], ids=["upsample", "downsample"])
def test_a_uniform_image_stays_as_bright_as_it_was(resample: object) -> None:
    uniform = torch.full((1, 1, 8, 8), 0.7, dtype=torch.float64)
    found = resample(uniform)  # type: ignore[operator]
    assert torch.allclose(found[..., 1:-1, 1:-1], torch.tensor(0.7, dtype=torch.float64))


def test_the_constant_is_in_no_checkpoint() -> None:
    assert not BINOMIAL.state_dict()
