"""R-precision: words are found where images show them, and by chance where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from ganpipe.evaluation.retrieval import WordFinder, bags_of_words, precisions
from ganpipe.words import NUM_RESERVED

NUM_WORDS = NUM_RESERVED + 40


def dataset(num: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Texts of three words, and features that are the sum of a direction per word, and noise."""
    random = np.random.default_rng(seed)
    directions_VD = np.random.default_rng(99).normal(size=(NUM_WORDS, 64))
    tokens_NL = np.stack([random.permutation(np.arange(NUM_RESERVED, NUM_WORDS))[:3] for _ in range(num)])
    features_ND = directions_VD[tokens_NL].sum(1) + noise * random.normal(size=(num, 64))
    return features_ND.astype(np.float32), tokens_NL


def test_bags_leave_out_padding_and_unknown_words() -> None:
    bags = bags_of_words(np.array([[2, 4, 4, 0], [1, 0, 0, 0]]), 6)
    assert bags.tolist() == [[0, 0, 1, 0, 1, 0], [0] * 6]


def test_images_of_their_words_are_found_and_others_by_chance() -> None:
    real, tokens = dataset(600, noise=0.5)
    same_words = np.random.default_rng(1).normal(size=real.shape) * 0.5 + real
    of_samples, of_real = precisions(real, same_words.astype(np.float32), tokens, NUM_WORDS, seed=0)  # type: ignore[misc]
    assert of_real > 0.8
    assert of_samples > 0.7
    other_words = real[np.random.default_rng(2).permutation(600)]
    by_chance, _ = precisions(real, other_words, tokens, NUM_WORDS, seed=0)  # type: ignore[misc]
    assert by_chance < 0.05


def test_it_does_not_depend_on_the_size_of_features() -> None:
    real, tokens = dataset(300, noise=1.0)
    first = precisions(real, real, tokens, NUM_WORDS, seed=0)
    assert first == pytest.approx(precisions(7 * real + 3, 7 * real + 3, tokens, NUM_WORDS, seed=0), abs=0.02)
    assert first == precisions(real, real, tokens, NUM_WORDS, seed=0)


def test_it_generalises_to_texts_that_it_has_not_seen() -> None:
    """The finder is fitted to one half: a finder that knows nothing of the other half's words finds by chance."""
    real, tokens = dataset(400, noise=0.2)
    finder = WordFinder.fit(real[:200], bags_of_words(tokens[:200], NUM_WORDS))
    strange = np.where(tokens[200:] > 0, NUM_RESERVED, 0)  # all texts alike but for one image
    strange[:, 0] = tokens[200:, 0]
    assert finder.precision(real[200:], bags_of_words(tokens[200:], NUM_WORDS), 0) > 0.8
    assert finder.precision(real[200:], bags_of_words(strange, NUM_WORDS), 0) < 0.8


@pytest.mark.parametrize("num", [0, 3])
def test_too_few_images_have_no_value(num: int) -> None:
    real, tokens = dataset(4, noise=0.1)
    assert precisions(real[:num], real[:num], tokens, NUM_WORDS, seed=0) is None
