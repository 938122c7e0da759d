"""Worked examples ("shots"): a short passage with its own kind of key, the question about it, and its answer."""

from __future__ import annotations

import random
from collections.abc import Sequence

from infini_eval.datasets import english
from infini_eval.datasets.passkey_text import PASSAGE, SHOT_KINDS, ShotKind

SENTENCE_NUMBERS = 2**31  # shots take their sentences from the upper half of the numbers, haystacks from the lower


def shots_text(keys: Sequence[str], rng: random.Random) -> str:
    """The shots' text, one shot a key, kinds in turn; empty without keys. It ends without a space."""
    return "".join(_shot(SHOT_KINDS[i % len(SHOT_KINDS)], key, rng) for i, key in enumerate(keys))


def _shot(kind: ShotKind, key: str, rng: random.Random) -> str:
    sentence = english.sentences(rng.randrange(2**32), SENTENCE_NUMBERS + rng.randrange(2**30), 1)[0]
    before = sentence.rstrip(".")
    return f"{PASSAGE}{before}. {kind.passage.format(key=key)} {kind.question.format(key=key)}.\n"
