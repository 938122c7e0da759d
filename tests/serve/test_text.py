"""The text of an answer as its tokens come: nothing is taken back, and the parts joined are the whole."""

from __future__ import annotations

import pytest

from infini_eval.serve.text import AnswerText

SENTENCE = "The pass key is 48151. Zażółć gęślą jaźń 🙂 — END of it."


def parts_of(tokenizer, text: str, stops=()) -> tuple[list[str], AnswerText]:
    answer = AnswerText(tokenizer, stops)
    parts = []
    for token in tokenizer.encode(text, add_special_tokens=False).tolist():
        if not answer.stopped:
            answer.add(token)
            parts.append(answer.new_part())
    answer.end()
    return [*parts, answer.new_part()], answer


def test_parts_are_whole_characters_and_join_to_the_text(tokenizer):
    parts, answer = parts_of(tokenizer, SENTENCE)
    assert "".join(parts) == answer.end() == SENTENCE
    assert not any("\ufffd" in part for part in parts)
    assert len(answer.offsets) == len(answer) == answer.kept


@pytest.mark.parametrize("stop", ["48151", "1. Z", "END", "The", "🙂"])
def test_a_stop_string_ends_the_text_before_it_wherever_tokens_part(tokenizer, stop):
    parts, answer = parts_of(tokenizer, SENTENCE, [stop])
    assert answer.stopped and "".join(parts) == answer.end() == SENTENCE[: SENTENCE.index(stop)]
    assert answer.kept <= len(answer) <= len(tokenizer.encode(SENTENCE, add_special_tokens=False))


def test_the_first_of_several_stop_strings_ends_it(tokenizer):
    _, answer = parts_of(tokenizer, SENTENCE, ["END", "key", "48151"])
    assert answer.end() == "The pass "


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_none(tokenizer):
    parts, answer = parts_of(tokenizer, "one\ntwo", ["\n\n"])
    assert "".join(parts) == "one\ntwo" and not answer.stopped
    assert all(not "".join(parts[:end]).endswith("\n") for end in range(len(parts)))


def test_half_a_character_at_the_end_is_shown_as_one_that_is_missing(tokenizer):
    answer = AnswerText(tokenizer)
    answer.add(tokenizer.encode("🙂", add_special_tokens=False).tolist()[0])
    assert answer.new_part() == ""
    assert answer.end().startswith("\ufffd")
