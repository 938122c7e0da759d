"""Generated English for haystacks: seeded, endless, and without any sentence twice in 2**32 sentences.

Sentence number n is looked up, not drawn: a keyed permutation of 0..2**32-1 turns n into the choice of words, so that
two sentences never have the same words in the same pattern, and any part of the text can be made on its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from infini_eval.datasets.english_words import (
    ADJECTIVES,
    ADVERBS,
    NOUNS,
    PATTERNS,
    PEOPLE,
    PLACES,
    PLURALS,
    TIMES,
    VERBS,
)

WORDS = {
    "noun": NOUNS,
    "plural": PLURALS,
    "adjective": ADJECTIVES,
    "verb": VERBS,
    "adverb": ADVERBS,
    "person": PEOPLE,
    "place": PLACES,
    "time": TIMES,
    "year": tuple(str(year) for year in range(1204, 1996)),
    "number": tuple(str(number) for number in range(12, 987)),
}
SENTENCES_PER_BLOCK = 2_000
PARAGRAPH = 7  # sentences

_PARTS = tuple(tuple(pattern.split("|")) for pattern in PATTERNS)  # text, slot, text, slot, ..., text


def blocks(seed: int) -> Iterator[str]:
    """The endless text of a seed in blocks of SENTENCES_PER_BLOCK sentences, each ending in a space or a newline."""
    first = 0
    while True:
        yield text(seed, first, SENTENCES_PER_BLOCK)
        first += SENTENCES_PER_BLOCK


def text(seed: int, first: int, count: int) -> str:
    """Sentences number `first` .. `first + count - 1`, a newline after each paragraph."""
    made = sentences(seed, first, count)
    ends = ("\n" if (first + i + 1) % PARAGRAPH == 0 else " " for i in range(count))
    return "".join(sentence + end for sentence, end in zip(made, ends, strict=True))


def sentences(seed: int, first: int, count: int) -> list[str]:
    """The sentences by number."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    choices = permute(numbers, seed).tolist()
    patterns = (_mix(numbers + np.uint64(0x5EED), seed) % np.uint64(len(_PARTS))).tolist()
    return [_sentence(_PARTS[pattern], choice) for pattern, choice in zip(patterns, choices, strict=True)]


def _sentence(parts: tuple[str, ...], choice: int) -> str:
    slots = parts[1::2]
    choice = choice * math.prod(len(WORDS[slot]) for slot in slots) >> 32  # spread over all combinations, still unique
    words = []
    for slot in slots:
        options = WORDS[slot]
        choice, index = divmod(choice, len(options))
        words.append(options[index])
    filled = parts[0] + "".join(word + between for word, between in zip(words, parts[2::2], strict=True))
    return filled[0].upper() + filled[1:]


def permute(numbers: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A keyed permutation of 0 .. 2**32 - 1 (four Feistel rounds on 16-bit halves)."""
    half = np.uint64(0xFFFF)
    left, right = (numbers >> np.uint64(16)) & half, numbers & half
    for turn in range(4):
        left, right = right, left ^ (_mix(right + (np.uint64(turn) << np.uint64(32)), seed) & half)
    return (left << np.uint64(16)) | right


def _mix(values: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Well-spread 64-bit values (the splitmix64 finaliser); arithmetic wraps around."""
    key = np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    mixed = values * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
