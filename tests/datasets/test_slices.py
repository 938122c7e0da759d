"""Slices of a haystack: exactly as many tokens as asked, also in text that can hardly be cut."""

from __future__ import annotations

import itertools

from infini_eval.datasets.haystack import build_haystack
from infini_eval.datasets.slices import plan_slices
from infini_eval.datasets.tokenizer import Tokenizer


def test_every_way_has_the_tokens_asked_for(bpe: Tokenizer) -> None:
    """Code and lists have long stretches without a cut, also just where a haystack should end."""
    text = "".join(f"Some few words say it, then a list: {'=+' * (100 + i % 25)} and so on. " for i in range(300))
    haystack = build_haystack([text], bpe, 9_000, name="list")
    ways = 0
    for tokens, variant in itertools.product(range(300, 620, 4), range(4)):
        gaps = plan_slices(haystack, 40, [], 0, tokens, variant)
        if gaps is not None:
            ways += 1
            assert sum(haystack.slice_tokens(a, b) for a, b in gaps[0]) == tokens
    assert ways > 100
