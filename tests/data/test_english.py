"""Generated English: never a sentence twice, the same on every machine, any part on its own."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from infini_eval.data import english


def test_no_sentence_twice_in_a_million_tokens() -> None:
    sentences = english.sentences(seed=3, first=0, count=100_000)
    assert len(set(sentences)) == 100_000


def test_patterns_allow_enough_sentences() -> None:
    for parts in english._PARTS:
        assert math.prod(len(english.WORDS[slot]) for slot in parts[1::2]) >= 2**32, parts
        assert len(set(english.WORDS[parts[1]])) == len(english.WORDS[parts[1]])


def test_the_permutation_is_one() -> None:
    assert len(np.unique(english.permute(np.arange(200_000, dtype=np.uint64), seed=9))) == 200_000


def test_any_part_can_be_made_alone() -> None:
    assert english.text(4, 0, 30) == english.text(4, 0, 10) + english.text(4, 10, 20)
    assert english.text(4, 0, 30) != english.text(5, 0, 30)


def test_the_text_never_changes() -> None:
    """Prebuilt data and published results depend on it."""
    assert hashlib.sha256(english.text(1, 0, 1_000).encode()).hexdigest()[:16] == "cf4ebe96d32a9fae"
