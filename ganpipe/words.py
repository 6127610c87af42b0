"""Texts as token numbers: words, and the vocabulary that numbers them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

PADDING, UNKNOWN, NUM_RESERVED = 0, 1, 2
"""Token numbers: the padding after a short text, a word that the vocabulary lacks, and the vocabulary's first word."""
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text in their order, in lower case and without punctuation."""
    return _WORD.findall(text.casefold())


def vocabulary(texts: Iterable[str], num_words: int) -> tuple[str, ...]:
    """The `num_words` most frequent words, the most frequent first; equally frequent words in alphabetical order."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words_of(text))
    return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:num_words])


def token_numbers(words: Sequence[str]) -> dict[str, int]:
    """Word -> token number.

    Args:
        words: the vocabulary, in the order of `vocabulary`.
    """
    return {word: number + NUM_RESERVED for number, word in enumerate(words)}


def knows_a_word(text: str, words: Sequence[str]) -> bool:
    """Whether a text has a word of the vocabulary; without a vocabulary nobody knows, and the answer is yes."""
    return not words or not set(words_of(text)).isdisjoint(words)


def words_like(text: str, words: Sequence[str], most: int = 50) -> Sequence[str]:
    """Words of the vocabulary for a hint: the most frequent of those that begin as the text's first word does, or, if
    no word does, of all.

    Args:
        text: has at least one word.
    """
    first = words_of(text)[0][0]
    return [word for word in words if word.startswith(first)][:most] or words[:most]


def tokenise(text: str, numbers: Mapping[str, int], length: int) -> list[int]:
    """The token numbers of a text's words: exactly `length` numbers, cut or filled up with PADDING.

    Args:
        numbers: word -> token number, from `token_numbers`.
    """
    tokens = [numbers.get(word, UNKNOWN) for word in words_of(text)[:length]]
    return tokens + [PADDING] * (length - len(tokens))
