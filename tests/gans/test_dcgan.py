"""DCGAN's networks, where they differ from torch's layers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ganpipe.networks.dcgan import ToImage, generator

RANDOM = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("side", [1, 4, 16])
def test_a_pixel_at_the_border_is_as_strong_as_others(side: int) -> None:
    """The sum divided by the share of its terms that are there, counted by the same convolution of ones."""
    layer, maps = ToImage(3, 2).double(), torch.randn(5, 3, side, side, dtype=torch.float64, generator=RANDOM)
    assert layer.bias is not None
    torch.nn.init.normal_(layer.bias)
    terms = F.conv_transpose2d(torch.ones(1, 1, side, side), torch.ones(1, 1, 4, 4), stride=2, padding=1)
    sums = F.conv_transpose2d(maps, layer.weight, stride=2, padding=1)
    torch.testing.assert_close(layer(maps), sums / (terms / 4) + layer.bias[:, None, None])


def test_an_even_ground_is_even_up_to_the_border() -> None:
    layer = ToImage(8, 1)
    torch.nn.init.constant_(layer.weight, -0.1)
    with torch.no_grad():
        made = layer(torch.ones(1, 8, 16, 16))
    torch.testing.assert_close(made, made[:, :, 16:17, 16:17].expand_as(made))
    assert layer.bias is not None
    torch.testing.assert_close(made, (layer.bias - 8 * 4 * 0.1).detach().expand_as(made))


def test_the_last_layer_keeps_its_names_and_the_kind_by_which_it_is_initialised() -> None:
    *_, last, _ = generator(8, 16, 3, 4)
    assert sorted(last.state_dict()) == ["bias", "weight"]
    assert isinstance(last, torch.nn.ConvTranspose2d)
