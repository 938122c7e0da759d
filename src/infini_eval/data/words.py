"""Words of the wonderwords package, RULER's needle sentence, and haystacks made of such sentences."""

from __future__ import annotations

import functools
import itertools
import random
import uuid
from collections.abc import Iterator
from typing import Literal

from infini_eval.errors import MaterialError

NUMBER_DIGITS = 7
SENTENCES_PER_PART = 500
Kind = Literal["words", "numbers", "uuids"]


@functools.lru_cache(maxsize=1)
def word_lists() -> tuple[list[str], list[str]]:
    """Adjectives and nouns, sorted, letters only."""
    return _words("adjective"), _words("noun")


def _words(kind: str) -> list[str]:
    try:
        from wonderwords import RandomWord
    except ImportError as error:
        raise MaterialError(
            "the RULER tasks need the package wonderwords", next_step='pip install "infini-eval[tasks]"'
        ) from error
    drawn = RandomWord().filter(include_categories=[kind])
    return sorted({word for word in drawn if word.isalpha() and word.isascii()})


@functools.lru_cache(maxsize=1)
def all_words() -> tuple[str, ...]:
    """Adjectives, nouns and verbs, sorted, each once."""
    return tuple(sorted({*itertools.chain.from_iterable(word_lists()), *_words("verb")}))


def word_pair(rng: random.Random, part: Literal[0, 1]) -> str:
    """ "adjective-noun"; the pairs of part 0 (haystacks) and of part 1 (needles) are never the same."""
    adjectives, nouns = word_lists()
    nouns = nouns[part::2]
    return f"{adjectives[rng.randrange(len(adjectives))]}-{nouns[rng.randrange(len(nouns))]}"


def random_uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def needle_sentence(kind: Kind, key: str, value: str) -> str:
    """RULER's needle."""
    return f"One of the special magic {kind} for {key} is: {value}."


def needle_haystack(seed: int, kind: Literal["numbers", "uuids"]) -> Iterator[str]:
    """Endless text in which every sentence is a needle, with keys that no needle proper has."""
    rng = random.Random(f"needles/{kind}/{seed}")
    while True:
        sentences = []
        for _ in range(SENTENCES_PER_PART):
            key = random_uuid(rng) if kind == "uuids" else word_pair(rng, part=0)
            value = (
                random_uuid(rng)
                if kind == "uuids"
                else str(rng.randrange(10 ** (NUMBER_DIGITS - 1), 10**NUMBER_DIGITS))
            )
            sentences.append(needle_sentence(kind, key, value))
        yield " ".join(sentences) + " "
