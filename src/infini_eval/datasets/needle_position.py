"""Where the needle stands in a prompt: its characters, tokens and segment, and what lies between it and the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from infini_eval.api.task import Span
from infini_eval.datasets.passkey_text import INTRO_16K, NEEDLE_SENTENCES, PASSAGE, QUESTION
from infini_eval.records import NeedlePosition

HAYSTACK_MARKS = (PASSAGE.strip(), INTRO_16K)  # what a passkey's haystack follows, the more certain one first


def find_passkey(prompt: str, answer: str) -> Span | None:
    """The half-open character span of the passkey needle that holds `answer`.

    Without the full sentences: the last occurrence of the answer as a whole number before the final question; None
    when the prompt does not hold it at all.
    """
    answer = answer.strip()
    if not answer:
        return None
    sentences = NEEDLE_SENTENCES.format(key=answer)
    start = prompt.find(sentences)
    if start >= 0:
        return start, start + len(sentences)
    return last_whole_word(prompt, answer, question_start(prompt))


def question_start(prompt: str) -> int:
    """Where the final question starts; the prompt's length when it has none of the passkey wording."""
    start = prompt.rfind(QUESTION.rstrip())
    return len(prompt) if start < 0 else start


def passkey_depth(prompt: str, answer: str) -> float | None:
    """The needle's depth in percent of the haystack's characters, by the passkey's wording; None where it is another."""
    span, end = find_passkey(prompt, answer), question_start(prompt)
    if span is None or end == len(prompt):
        return None
    start = next((at + len(mark) for mark in HAYSTACK_MARKS if (at := prompt.rfind(mark, 0, span[0])) >= 0), None)
    if start is None:
        return None
    before, after = span[0] - start, max(0, end - span[1])
    return 100 * before / (before + after) if before + after else None


def last_whole_word(prompt: str, word: str, end: int) -> Span | None:
    """The last place before `end` where `word` stands alone (no digit or letter touching it)."""
    while (start := prompt.rfind(word, 0, end)) >= 0:
        if stands_alone(prompt, start, start + len(word)):
            return start, start + len(word)
        end = start + len(word) - 1
    return None


def whole_word_starts(prompt: str, word: str) -> list[int]:
    """Every place where `word` stands alone."""
    places = (match.start() for match in re.finditer(re.escape(word), prompt))
    return [start for start in places if stands_alone(prompt, start, start + len(word))]


def stands_alone(text: str, start: int, end: int) -> bool:
    """True when no digit or letter touches text[start:end]."""
    return not (text[max(0, start - 1) : start].isalnum() or text[end : end + 1].isalnum())


def excerpt(prompt: str, span: Span | None, width: int = 60) -> str:
    """The needle with `width` characters on either side; the prompt's end (2 x width) when there is no needle."""
    start, end = span if span is not None else (max(0, len(prompt) - width), len(prompt))
    left, right = max(0, start - width), min(len(prompt), end + width)
    return f"{'…' if left else ''}{prompt[left:right]}{'…' if right < len(prompt) else ''}"


def token_span(char_span: Span, offsets: Sequence[Span] | NDArray[np.int64]) -> Span:
    """The half-open span of the tokens that overlap a half-open character span; (0, 0)-wide specials never do."""
    array = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    overlaps = (array[:, 0] < char_span[1]) & (array[:, 1] > char_span[0])
    inside = np.flatnonzero(overlaps)
    if not len(inside):
        raise ValueError(f"no token overlaps characters {char_span[0]}..{char_span[1]}")
    return int(inside[0]), int(inside[-1]) + 1


def needle_position(
    char_span: Span | None,
    offsets: Sequence[Span] | NDArray[np.int64],
    prompt_tokens: int,
    segment_length: int | None,
    answer_tokens: int,
) -> NeedlePosition:
    """The needle's tokens and segment, and how question and answer stand to the segments.

    `offsets` is the tokenizer's offset mapping of the whole prompt, [T, 2]; `prompt_tokens` N = T, specials included.
    The position N-1 predicts the answer's first token, positions N .. N-2+answer_tokens its further ones.
    """
    start, end = token_span(char_span, offsets) if char_span is not None else (None, None)
    if segment_length is None:
        return NeedlePosition(token_start=start, token_end=end)
    return position_from_tokens(start, end, prompt_tokens, segment_length, answer_tokens)


def position_from_tokens(
    start: int | None, end: int | None, prompt_tokens: int, segment_length: int, answer_tokens: int
) -> NeedlePosition:
    """The same from a known half-open token span; `start` and `end` are None where there is no needle."""
    length = segment_length
    question_segment, phase = divmod(prompt_tokens - 1, length)
    last_prediction = prompt_tokens - 1 + max(0, answer_tokens - 1)
    needle_segment = None if end is None else (end - 1) // length
    return NeedlePosition(
        token_start=start,
        token_end=end,
        needle_segment=needle_segment,
        question_segment=question_segment,
        compressions=None if needle_segment is None else question_segment - needle_segment,
        straddles_border=None if start is None else start // length != needle_segment,
        phase=phase,
        answer_crosses_border=last_prediction // length != question_segment,
    )
