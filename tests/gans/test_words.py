"""GANs that are given words: padding says nothing, wrong words are false, conditions have their distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from training_parts import InMemory, case_of, in_order, make_loop

from ganpipe.errors import GanpipeError
from ganpipe.gans import load
from ganpipe.gans.base import DataSpec
from ganpipe.gans.spec import FieldReader, Order, Shuffled, Stored
from ganpipe.losses.adversarial import matching_aware_discriminator
from ganpipe.networks.stackgan import enlarged
from ganpipe.networks.words import WordDiscriminator, WordEncoder
from ganpipe.words import knows_a_word, words_like


def test_padding_says_nothing() -> None:
    encoder = WordEncoder(num_words=6, num_units=5)
    short, long = encoder(torch.tensor([[3, 4]])), encoder(torch.tensor([[3, 4, 0, 0, 0]]))
    assert torch.allclose(short, long)
    assert torch.allclose(short, encoder(torch.tensor([[4, 3]])), atol=1e-6)  # a bag of words
    assert not torch.allclose(short, encoder(torch.tensor([[3, 5]])))
    assert torch.isfinite(encoder(torch.tensor([[0, 0]]))).all()


def test_the_discriminator_sees_the_words() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = WordDiscriminator(num_words=6, num_units=5, image_size=16, channels=1, width=4)
        image = torch.randn(1, 1, 16, 16)
    network.eval()  # batch norm of a single sample would take away what is the same at all its places, as words are
    scores = [network(image, network.encoder(torch.tensor([[word]]))).item() for word in (2, 3)]
    assert abs(scores[0] - scores[1]) > 1e-3


def test_matching_aware_loss() -> None:
    real, wrong, fake = torch.tensor([1.5, -0.25]), torch.tensor([0.3, 2.0]), torch.tensor([-2.0, 0.75])
    expected = -np.log(1 / (1 + np.exp(-real.numpy()))).mean() - 0.5 * (
        np.log(1 - 1 / (1 + np.exp(-wrong.numpy()))).mean() + np.log(1 - 1 / (1 + np.exp(-fake.numpy()))).mean()
    )
    assert matching_aware_discriminator(real, wrong, fake).item() == pytest.approx(expected, rel=1e-6)


def test_other_words_are_those_of_other_samples() -> None:
    """Each epoch has every text once, in an order of its own."""
    dataset = InMemory({"text": torch.arange(20)})

    def order(members: Sequence[int] | np.ndarray, group: str) -> Order:
        if not group:
            return in_order(members, group)
        chosen = np.random.default_rng(3).permutation(len(members))
        return lambda start, stop: chosen[np.arange(start, stop) % len(members)]

    reader = FieldReader({"own": Stored("text"), "other": Shuffled("text")}, dataset, order, seed=0)
    found = reader.read(0, 20, lambda rows: rows)
    assert found["own"].tolist() == list(range(20))
    assert sorted(found["other"].tolist()) == list(range(20))
    assert (found["own"] == found["other"]).sum() < 5


def test_conditions_are_drawn_around_their_mean() -> None:
    loop = make_loop("stackgan")
    gan = loop.state.gan
    from ganpipe.gans.base import Batch
    from ganpipe.gans.draws import BatchDraws

    words = torch.full((4000, 2), 2)
    batch = Batch(4000, BatchDraws(1, 4000, 0, 4000), {"text": words}, dtype=torch.float64)
    with torch.no_grad():
        mean_NK, log_variance_NK = gan.first_generator.conditioning(words)  # type: ignore[union-attr, operator]
        drawn_NK = gan._conditions(gan.first_generator, batch)  # type: ignore[operator]
    assert torch.allclose(drawn_NK.mean(0), mean_NK[0], atol=0.1)
    assert torch.allclose(drawn_NK.std(0), (log_variance_NK[0] / 2).exp(), rtol=0.1)
    divergence = batch.kept["divergence"].item()
    assert divergence == pytest.approx(
        0.5 * float((mean_NK[0] ** 2 + log_variance_NK[0].exp() - 1 - log_variance_NK[0]).sum()), rel=1e-6
    )
    assert math.isfinite(divergence)


def test_the_first_stage_of_stackgan_rests_under_the_second() -> None:
    loop = make_loop("stackgan", settings={"num_images": 64})
    first = {"first_generator", "first_discriminator"}
    moved: list[set[str]] = []
    for _ in range(4):
        before = {
            name: [p.detach().clone() for p in player.parameters()] for name, player in loop.state.players.items()
        }
        loop.step()
        moved.append(
            {
                name
                for name, player in loop.state.players.items()
                if any(not torch.equal(a, b) for a, b in zip(before[name], player.parameters(), strict=True))
            }
        )
    assert moved == [first, first, *[{"second_generator", "second_discriminator"}] * 2]


def test_the_second_stage_begins_at_the_interpolated_image() -> None:
    small = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(enlarged(small), F.interpolate(small, scale_factor=4, mode="bilinear"))
    with torch.autocast("cpu", torch.bfloat16):
        assert enlarged(small.float()).dtype == torch.float32  # white and black stay far from the next number of bf16


def test_stackgan_says_how_large_images_must_be() -> None:
    stackgan = load("stackgan")
    spec = DataSpec({**case_of("text_to_image").spec.fields})
    with pytest.raises(GanpipeError, match="data.image_size: got 16; stackgan needs 32 or more"):
        stackgan.check(stackgan.Config(), spec)


def test_hints_are_words_that_begin_alike_the_most_frequent_first() -> None:
    words = [*(f"a{number:04d}" for number in range(300)), "smiling", "sea"]
    assert words_like("smilign face", words) == ["smiling", "sea"]
    assert words_like("Xylophone", words) == words[:50]
    assert knows_a_word("a SEA view", words)
    assert not knows_a_word("smilign", words)
    assert knows_a_word("smilign", [])
