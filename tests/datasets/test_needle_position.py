"""Where a needle stands: characters, tokens, segments, phase; at the borders by hand."""

from __future__ import annotations

import pytest

from infini_eval.datasets.needle_position import (
    excerpt,
    find_passkey,
    needle_position,
    position_from_tokens,
    token_span,
)

NEEDLE = "The pass key is 482. Remember it. 482 is the pass key."
QUESTION = "What is the pass key? The pass key is "


def test_the_sentences_are_found() -> None:
    prompt = f"intro 482. {NEEDLE} more. {QUESTION}"
    start, end = find_passkey(prompt, "482")
    assert prompt[start:end] == NEEDLE


def test_another_key_is_not_the_needle() -> None:
    assert find_passkey(f"x {NEEDLE} y. {QUESTION}", "48") is None


def test_fallback_is_the_last_whole_number_before_the_question() -> None:
    prompt = f"7482 and 482 or 482x or (482), 4820. {QUESTION}482"
    start, _ = find_passkey(prompt, "482")
    assert prompt[start - 1] == "("
    assert find_passkey("4820 7482 48.2", "482") is None
    assert find_passkey("anything", "") is None


def test_excerpt() -> None:
    prompt = "a" * 100 + "NEEDLE" + "b" * 100
    assert excerpt(prompt, (100, 106), width=5) == "…aaaaaNEEDLEbbbbb…"
    assert excerpt("short", (0, 5)) == "short"
    assert excerpt("x" * 100 + "end", None, width=2) == "…xend"


def test_token_span_ignores_zero_width_specials() -> None:
    offsets = [(0, 0), (0, 3), (3, 7), (8, 12), (12, 15), (0, 0)]
    assert token_span((4, 12), offsets) == (2, 4)
    assert token_span((0, 1), offsets) == (1, 2)
    with pytest.raises(ValueError, match="no token"):
        token_span((7, 8), offsets)


@pytest.mark.parametrize(
    ("span", "prompt_tokens", "answer_tokens", "expected"),
    [
        # needle_segment, question_segment, compressions, straddles, phase, crosses
        ((0, 10), 100, 5, (0, 0, 0, False, 99, False)),
        ((120, 128), 128, 1, (0, 0, 0, False, 127, False)),
        ((120, 128), 128, 2, (0, 0, 0, False, 127, True)),
        ((120, 129), 129, 5, (1, 1, 0, True, 0, False)),
        ((128, 140), 1024, 5, (1, 7, 6, False, 127, True)),
        ((5, 9), 1023, 2, (0, 7, 7, False, 126, False)),
        ((5, 9), 1023, 3, (0, 7, 7, False, 126, True)),
    ],
)
def test_segments_by_hand(span, prompt_tokens, answer_tokens, expected) -> None:
    p = position_from_tokens(*span, prompt_tokens, 128, answer_tokens)
    assert (
        p.needle_segment,
        p.question_segment,
        p.compressions,
        p.straddles_border,
        p.phase,
        p.answer_crosses_border,
    ) == expected
    assert (p.token_start, p.token_end) == span


def test_without_needle_or_segments() -> None:
    nowhere = needle_position(None, [(0, 1)], 10, 4, 1)
    assert nowhere.needle_segment is None and nowhere.compressions is None and nowhere.phase == 1
    plain = needle_position((0, 1), [(0, 1), (1, 2)], 2, None, 1)
    assert (plain.token_start, plain.token_end, plain.phase) == (0, 1, None)
