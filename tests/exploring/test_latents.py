"""What a GAN draws, noted and given back; its coordinates against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exploring_parts import CODES, explored
from registry_parts import PROGRESS, build, make_gan
from toy_gans import build_toy, toys

from ganpipe.evaluation.sampling import sample_images
from ganpipe.exploring.explored import Explored
from ganpipe.exploring.latents import GivenDraws, Latents, RecordedDraws, has_styles
from ganpipe.gans.draws import Draws, SeededDraws

SEEDS = [0, 5, 9]


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Explored]:
    """A GAN of normal latents, one of uniform latents and classes, one with codes, one with styles; all packaged."""
    root = tmp_path_factory.mktemp("packages")
    found = {name: explored(build(root / name, name)) for name in ("dcgan", "cgan")}
    found["infogan"] = explored(build(root / "infogan", "infogan", config=CODES))
    with toys(root / "sources") as sources:
        found["toy_stylist"] = explored(build_toy(root / "toy_stylist", "toy_stylist", sources))
    return found


def test_draws_are_noted_and_given_back() -> None:
    def asked(draws: Draws) -> list[torch.Tensor]:
        return [draws.normal(4, 2), draws.integers(7), draws.uniform(), draws.normal(3)]

    draws = RecordedDraws(SeededDraws(SEEDS))
    first, plain, again = asked(draws), asked(SeededDraws(SEEDS)), asked(GivenDraws(draws.drawn))
    assert all(map(torch.equal, first, plain))
    assert all(map(torch.equal, first, again))
    assert [call.kind for call in draws.drawn] == ["normal", "integers", "uniform", "normal"]


@pytest.mark.parametrize("name", ["dcgan", "cgan", "infogan"])
def test_given_back_they_make_the_same_images_to_the_bit(subjects: dict[str, Explored], name: str) -> None:
    subject, gan = subjects[name], make_gan(name, config=CODES if name == "infogan" else None)
    latents = subject.latents(SEEDS)
    expected = sample_images(gan, PROGRESS, SEEDS)
    np.testing.assert_array_equal(subject.images(latents, subject.conditions(SEEDS)), expected)
    assert expected.std(0).max() > 5  # the seeds' images differ
    # As coordinates and back, too: uniform numbers are centred.
    np.testing.assert_array_equal(subject.images(latents.at(latents.vectors_NK), subject.conditions(SEEDS)), expected)


def test_styles_and_noise_make_the_same_images_to_the_bit(subjects: dict[str, Explored]) -> None:
    subject = subjects["toy_stylist"]
    assert [has_styles(item.gan) for item in subjects.values()] == [False, False, False, True]
    latents = subject.latents(SEEDS, "w")
    assert latents.w_NLD is not None
    assert latents.w_NLD.shape == (3, 3, 2)
    assert [call.rows.shape for call in latents.drawn] == [(3, 1, 16, 16)]
    assert torch.equal(subject.styles(SEEDS), latents.w_NLD)
    np.testing.assert_array_equal(subject.images(latents, {}), subject.samples(SEEDS))
    assert [call.rows.shape for call in subject.latents(SEEDS).drawn] == [(3, 2), (3, 1, 16, 16)]


def test_coordinates_are_centred_and_of_known_range(subjects: dict[str, Explored]) -> None:
    normal, uniform = (subjects[name].latents(list(range(100))) for name in ("infogan", "cgan"))
    assert normal.vectors_NK.shape == uniform.vectors_NK.shape == (100, 8)
    assert normal.vectors_NK.abs().max() > 2
    assert 0.45 < uniform.vectors_NK.abs().max() <= 0.5
    assert normal.spread_K.tolist() == [1.0] * 8
    assert uniform.spread_K.tolist() == uniform.bounds_K.tolist() == [0.5] * 8
    assert torch.isinf(normal.bounds_K).all()


def test_integers_are_no_coordinates_and_those_of_the_first_sample() -> None:
    draws = RecordedDraws(SeededDraws(SEEDS))
    draws.uniform(2), draws.integers(1000), draws.normal(3)
    latents = Latents(tuple(draws.drawn))
    assert latents.vectors_NK.shape == (3, 5)
    moved = latents.at(torch.zeros(4, 5))
    assert len(moved) == 4
    assert torch.equal(moved.drawn[0].rows, torch.full((4, 2), 0.5))
    assert set(moved.drawn[1].rows.tolist()) == {int(draws.drawn[1].rows[0])}
    assert torch.equal(moved.drawn[2].rows, torch.zeros(4, 3))


def test_gradients_reach_the_coordinates(subjects: dict[str, Explored]) -> None:
    for name, space in (("dcgan", "z"), ("cgan", "z"), ("toy_stylist", "w")):
        subject = subjects[name]
        latents = subject.latents([3], space)  # type: ignore[arg-type]
        vector_1K = latents.vectors_NK.clone().requires_grad_()
        subject.render(latents.at(vector_1K), subject.conditions([3])).square().sum().backward()
        assert vector_1K.grad is not None
        assert vector_1K.grad.abs().sum() > 0, name
