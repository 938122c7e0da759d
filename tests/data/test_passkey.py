"""Passkey prompts: every defect of a data set is named, needles are found, wrong numbers are traced."""

from __future__ import annotations

import pytest

from infini_eval.data.passkey import (
    excerpt,
    find_passkey,
    needle_position,
    number_source,
    off_labels,
    position_from_tokens,
    token_span,
    validate,
)
from infini_eval.records import Sample

ENDING = ". What is the pass key? The pass key is "


def needle(key: str) -> str:
    return f". The pass key is {key}. Remember it. {key} is the pass key. "


def sample(prompt: str, answer: str = "482", name: str = "a") -> Sample:
    return Sample(id=name, prompt=prompt, answer=answer, depth_percent=50.0)


SHOT = (
    "\n Passage: x. The gatecode is {k}. Remember it. {k} is the gatecode. What is the gatecode? The gatecode is {k}.\n"
)
CLEAN = "intro 4820 words" + needle("482") + "more 1482 words" + ENDING


def test_clean_data() -> None:
    assert validate([sample(CLEAN), sample(SHOT.format(k="77") + CLEAN, name="b")]) == []


@pytest.mark.parametrize(
    ("kind", "prompt", "answer"),
    [
        ("missing_needle", "words" + ENDING, "482"),
        ("repeated_needle", "a" + needle("482") + "b" + needle("482") + ENDING, "482"),
        ("answer_leaked", "a" + needle("482") + "it was 482, yes" + ENDING, "482"),
        ("answer_after_question", CLEAN + "482", "482"),
        ("answer_after_question", CLEAN + "482.", "482"),
        ("shot_key_reused", SHOT.format(k="482") + CLEAN, "482"),
        ("non_numeric_answer", "eat a sandwich", "eat a sandwich"),
    ],
)
def test_each_defect(kind: str, prompt: str, answer: str) -> None:
    (finding,) = validate([sample(prompt, answer), sample(CLEAN, name="fine")])
    assert (finding.kind, finding.count, finding.examples) == (kind, 1, ("a",))
    assert kind in str(finding)


def test_duplicate_ids() -> None:
    (finding,) = validate([sample(CLEAN), sample(CLEAN), sample(CLEAN), sample(CLEAN, name="b")])
    assert (finding.kind, finding.count, finding.examples) == ("duplicate_id", 2, ("a",))


def test_a_number_that_only_contains_the_answer_is_no_leak() -> None:
    assert validate([sample("a" + needle("48") + "1482 and 480" + ENDING, "48")]) == []


def labelled(depth: float, prompt: str = CLEAN, **columns: object) -> Sample:
    return Sample("a", prompt, "482", depth, columns=columns)


def test_labels_that_are_off() -> None:
    (finding,) = off_labels([labelled(50, real_depth=55.1), labelled(50, real_depth=54.9), labelled(0, real_depth=2)])
    assert (finding.kind, finding.count) == ("off_label", 1) and "more than 5 points" in str(finding)
    assert validate([labelled(50, real_depth=0.0)]) == []  # no defect: it is a right prompt with a wrong label
    assert off_labels([labelled(50, real_depth=0.0, control="no-context")]) == []
    assert off_labels([labelled(50, real_depth=0.0, outputs='["1", "2"]')]) == []
    assert off_labels([labelled(float("nan"), real_depth=0.0)]) == []


def test_the_wording_tells_the_depth_of_foreign_data() -> None:
    prompt = f"intro\n Passage: {'word ' * 30}{needle('482').strip()} {'word ' * 10}{ENDING}"
    assert [len(off_labels([labelled(depth, prompt)])) for depth in (0, 70, 75, 85, 100)] == [1, 0, 0, 1, 1]
    assert off_labels([labelled(0, CLEAN)]) == []  # nothing says where its haystack begins


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


PROMPT = (
    "Passage: A tram. The gatecode is 5044. Remember it. What is the gatecode? The gatecode is 5044. "
    "Passage: Room 4711 is shut. The pass key is 1234. Remember it. 1234 is the pass key. The pass key is "
)


@pytest.mark.parametrize(
    ("generation", "source"),
    [
        ("5044", "shot"), (" 4711.", "prompt"), ("999", "nowhere"), ("471", "nowhere"), ("1234", None), ("", None),
        ("no number", None), ("x" * 20_000 + "5044", None),
    ],
)  # fmt: skip
def test_source(generation, source):
    assert number_source(PROMPT, "1234", generation) == source


def test_words_have_no_source():
    assert number_source(PROMPT, "blue", "5044") is None
