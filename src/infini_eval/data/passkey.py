"""Passkey prompts: their wording (exactly that of the published 1K and 16K sets), where needles stand, and defects."""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infini_eval.api.task import DataFinding, Span
from infini_eval.data import english
from infini_eval.data.haystack import OFF_POINTS, is_off
from infini_eval.records import NeedlePosition, Sample

INTRO_16K = (
    "There is a pass key hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about what is the pass key later on."
)
INTRO_1K = INTRO_16K + " \n"
PASSAGE = "\n Passage: "
NEEDLE = ". The pass key is {key}. Remember it. {key} is the pass key. "
NEEDLE_SENTENCES = "The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "What is the pass key? The pass key is "  # ends in a space: the answer's first token follows it
NEEDLE_OPENING = "The pass key is"  # must not occur in a haystack

INTRO_SIMPLE = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)


@dataclass(frozen=True)
class ShotKind:
    """A worked example's own kind of key; `passage` and `question` contain {key}."""

    name: str
    passage: str
    question: str


SHOT_KINDS = tuple(
    ShotKind(
        name,
        passage=f"The {name} is {{key}}. Remember it. {{key}} is the {name}.",
        question=f"What is the {name}? The {name} is {{key}}",
    )
    for name in ("gatecode", "vault key", "encrypted message")
)


SENTENCE_NUMBERS = 2**31  # shots take their sentences from the upper half of the numbers, haystacks from the lower


def shots_text(keys: Sequence[str], rng: random.Random) -> str:
    """The shots' text, one shot a key, kinds in turn; empty without keys. It ends without a space."""
    return "".join(_shot(SHOT_KINDS[i % len(SHOT_KINDS)], key, rng) for i, key in enumerate(keys))


def _shot(kind: ShotKind, key: str, rng: random.Random) -> str:
    sentence = english.sentences(rng.randrange(2**32), SENTENCE_NUMBERS + rng.randrange(2**30), 1)[0]
    before = sentence.rstrip(".")
    return f"{PASSAGE}{before}. {kind.passage.format(key=key)} {kind.question.format(key=key)}.\n"


HAYSTACK_MARKS = (PASSAGE.strip(), INTRO_16K)  # what a passkey's haystack follows, the more certain one first


def find_passkey(prompt: str, answer: str) -> Span | None:
    """Find the half-open character span of the passkey needle that holds `answer`.

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


EXAMPLES_KEPT = 5

MESSAGES = {
    "missing_needle": "the prompt does not hold the answer: nothing to retrieve",
    "repeated_needle": "the needle stands in the prompt more than once",
    "answer_leaked": "the answer stands again after the needle: it can be copied from there",
    "answer_after_question": "the answer follows the question: these are training data (made with --is_eval no)",
    "shot_key_reused": "the needle's key is also the key of a worked example",
    "duplicate_id": "the id occurs more than once",
    "wrong_length": "the prompt does not have the tokens that the data say (token_count or num_tokens)",
    "non_numeric_answer": "the answer is not a number",
    "off_label": f"the needle's real depth is more than {OFF_POINTS:g} points from depth_percent",
}
_SHOT_KEY = re.compile("|".join(re.escape(f"The {kind.name} is ") + r"(\d+)" for kind in SHOT_KINDS))


def validate(samples: Sequence[Sample]) -> list[DataFinding]:
    """Find the defects of a passkey data set, one finding a kind, in the order of MESSAGES; an empty list when clean."""
    ids: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        for kind in _defects(sample):
            ids[kind].append(sample.id)
    ids["duplicate_id"] = duplicates(sample.id for sample in samples)
    return findings(ids)


def off_labels(samples: Sequence[Sample]) -> list[DataFinding]:
    """Find the samples whose needle stands far from its depth label: no defect, but no measure at that depth either."""
    return findings({"off_label": [s.id for s in samples if is_off_label(s.depth_percent, _with_real_depth(s))]})


def is_off_label(label: float, columns: Mapping[str, Any]) -> bool:
    """Tell whether the row's `real_depth` is far from its label; never where there is none, no needle, or several answers.

    Several answers (the column `outputs`) stand at depths of their own.
    """
    real = columns.get("real_depth")
    if not isinstance(real, (int, float)) or columns.get("control") == "no-context":
        return False
    return _answers(columns) < 2 and is_off(label, float(real))


def _with_real_depth(sample: Sample) -> Mapping[str, Any]:
    """The columns with a real depth, where the data or the passkey's wording tell it."""
    if "real_depth" in sample.columns:
        return sample.columns
    return {**sample.columns, "real_depth": passkey_depth(sample.prompt, sample.answer)}


def _answers(columns: Mapping[str, Any]) -> int:
    outputs = columns.get("outputs")
    if isinstance(outputs, str) and outputs.startswith("["):
        outputs = json.loads(outputs)
    return len(outputs) if isinstance(outputs, list) else 1


def findings(ids_by_kind: dict[str, list[str]]) -> list[DataFinding]:
    """Findings for the kinds that occurred, in the order of MESSAGES."""
    return [
        DataFinding(kind, len(ids), tuple(dict.fromkeys(ids))[:EXAMPLES_KEPT], message)
        for kind, message in MESSAGES.items()
        if (ids := ids_by_kind.get(kind, []))
    ]


def duplicates(ids: Iterable[str]) -> list[str]:
    """Each id that occurs more than once, as often as it occurs beyond the first time."""
    return [name for name, n in Counter(ids).items() for _ in range(n - 1)]


def _defects(sample: Sample) -> list[str]:
    prompt, answer = sample.prompt, sample.answer.strip()
    if sample.columns.get("control") == "no-context":
        return []  # the control has no needle on purpose
    if not answer.isdecimal():
        return ["non_numeric_answer"]
    span = find_passkey(prompt, answer)
    if span is None:
        return ["missing_needle"]
    defects = []
    if prompt.count(NEEDLE_SENTENCES.format(key=answer)) > 1:
        defects.append("repeated_needle")
    question = question_start(prompt)
    if answer_follows_question(prompt, answer):
        defects.append("answer_after_question")
    if any(span[1] <= start < question for start in whole_word_starts(prompt, answer)) and not defects:
        defects.append("answer_leaked")
    if answer in shot_keys(prompt[: span[0]]):
        defects.append("shot_key_reused")
    return defects


def answer_follows_question(prompt: str, answer: str) -> bool:
    """True when the text after the final question begins with the answer."""
    tail = prompt[question_start(prompt) + len(QUESTION.rstrip()) :].lstrip()
    return bool(tail) and tail.startswith(answer) and stands_alone(tail, 0, len(answer))


def shot_keys(text: str) -> set[str]:
    """The keys of the worked examples in a text, found by their wording."""
    return {key for match in _SHOT_KEY.finditer(text) for key in match.groups() if key}


_NUMBER = re.compile(r"\d+")
_LONGEST = 10_000  # characters of the generation that are looked at


def number_source(prompt: str, answer: str, generation: str) -> str | None:
    """ "shot", "prompt" or "nowhere" for the first number of the generation; None where it is the answer or no number."""
    match = _NUMBER.search(generation[:_LONGEST])
    if match is None or not answer.strip().isdecimal() or match.group() == answer.strip():
        return None
    number = match.group()
    place = last_whole_word(prompt, number, len(prompt))
    if place is None:
        return "nowhere"
    return "shot" if number in shot_keys(prompt) else "prompt"
