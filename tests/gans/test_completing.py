"""GANs that complete images: outside of the hole nothing changes, and what the critics look at is the hole."""

from __future__ import annotations

import pytest
import torch
from training_parts import given_to, make_loop

from ganpipe.evaluation.sampling import quantise, sample_images
from ganpipe.gans.base import Batch, Progress
from ganpipe.gans.draws import BatchDraws
from ganpipe.losses.reconstruction import weighted_squared
from ganpipe.networks.inpainting import ChannelwiseLinear, patches_around


@pytest.mark.parametrize("name", ["context_encoder", "glcic"])
def test_only_the_hole_is_filled(name: str) -> None:
    loop = make_loop(name, settings={"precision": "fp32"})
    given = given_to(loop.state.gan, name, 6)
    with loop.state.averaged() as gan:
        made = sample_images(gan, loop.state.progress, range(6), given)
        whole = {**given, "source": torch.where(given["mask"] > 0, 0.7, given["source"])}
        of_a_whole_image = sample_images(gan, loop.state.progress, range(6), whole)
    is_missing = (given["mask"] > 0).numpy()
    assert (made[~is_missing] == quantise(given["source"])[~is_missing]).all()
    assert (made[is_missing] != quantise(given["source"])[is_missing]).any()
    assert (made == of_a_whole_image).all(), "what lies in the hole must not matter"


def test_the_surroundings_of_a_hole_count_more() -> None:
    gan = make_loop("context_encoder", overlap=1, overlap_weight=10.0).state.gan
    mask = torch.full((1, 1, 8, 8), -1.0)
    mask[..., 3:5, 3:5] = 1
    weights = gan._weights(Batch(1, BatchDraws(0, 1, 0, 1), {"mask": mask}))[0, 0]  # type: ignore[operator]
    assert weights[3:5, 3:5].unique().tolist() == [1.0]
    assert (weights[2:6, 2:6].sum() - 4).item() == 12 * 10
    assert weights.sum() == weights[2:6, 2:6].sum()


def test_a_weighted_error_is_a_mean_over_what_counts() -> None:
    first, second = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    second[0, :, :2] = 3.0
    weight = torch.zeros(2, 1, 4, 4)
    weight[:, :, :2] = 5.0
    assert weighted_squared(first, second, weight).item() == pytest.approx((9 + 1) / 2)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (5, 9), (10, 3), (12, 12)])
def test_patches_lie_around_the_hole(top: int, left: int) -> None:
    images = torch.arange(2 * 3 * 16 * 16, dtype=torch.float64).reshape(2, 3, 16, 16)
    mask = torch.full((2, 1, 16, 16), -1.0)
    mask[:, :, top : top + 4, left : left + 4] = 1
    at = [max(0, min(8, round(start + 1.5 - 4))) for start in (top, left)]
    expected = images[:, :, at[0] : at[0] + 8, at[1] : at[1] + 8]
    assert torch.equal(patches_around(images, mask), expected)


def test_a_channelwise_layer_connects_places_within_a_map() -> None:
    layer = ChannelwiseLinear(maps=3, side=2).double()
    hidden = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    moved = torch.stack(
        [
            torch.stack([(hidden[n, c].flatten() @ layer.weight_CPP[c]).reshape(2, 2) for c in range(3)])
            for n in range(2)
        ]
    )
    assert torch.allclose(layer(hidden), layer.mix(moved))


def test_glcic_has_three_stages() -> None:
    gan = make_loop("glcic").state.gan
    players = [[phase.player for phase in gan.phases(Progress(at, 100))] for at in (0, 29, 32, 35, 99)]
    assert players == [["generator"], ["generator"], ["discriminator"], *[["discriminator", "generator"]] * 2]
