"""Texts as numbers: words of a vocabulary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

PADDING, UNKNOWN, NUM_RESERVED = 0, 1, 2
"""Token numbers: what fills a short text up, a word that the vocabulary lacks, and the number of the first word."""
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text in their order, without case and punctuation."""
    return _WORD.findall(text.casefold())


def vocabulary(texts: Iterable[str], num_words: int) -> tuple[str, ...]:
    """The `num_words` most frequent words, the most frequent first; equally frequent words in alphabetical order."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words_of(text))
    return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:num_words])


def numbers_of(words: Sequence[str]) -> dict[str, int]:
    """Word -> its token's number."""
    return {word: number + NUM_RESERVED for number, word in enumerate(words)}


def tokenise(text: str, numbers: Mapping[str, int], length: int) -> list[int]:
    """The numbers of a text's words, filled up to `length` with PADDING; what is longer is cut."""
    tokens = [numbers.get(word, UNKNOWN) for word in words_of(text)[:length]]
    return tokens + [PADDING] * (length - len(tokens))
